"""Import of a model as the folder of a finished stage, which other commands can use like the folder of a trained stage.

DIR/
    stage.yaml       the spec, with the config of the model and the hash of the weights (`init_from`)
    checkpoints/     one checkpoint with the imported weights
    done.json        the training cost of the imported model (zero if unknown)
    import.json      the origin of the weights
    data/            tokenizer.json, if the model has a tokenizer and no prepared corpus was given
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tfscale import checkpoint
from tfscale.checkpoint import Counters
from tfscale.data.manifest import TOKENIZER_FILE
from tfscale.data.prepared import open_data
from tfscale.data.tokenizer import Tokenizer
from tfscale.faults import UserFault, user_faults
from tfscale.files import new_folder, sha256_of, write_json
from tfscale.growth.imported_weights import weights_digest
from tfscale.interop.foreign import Foreign
from tfscale.models.config import ModelConfig
from tfscale.models.counts import parameters
from tfscale.optimizers.adamw import AdamW
from tfscale.plan.specs import humanize
from tfscale.stage.growth_record import IMPORT_FILE
from tfscale.stage.result import Result, write_result
from tfscale.stage.spec import CHECKPOINTS, DataSpec, LearningRateSchedule, RunSpec, StageSpec, key_of, write_spec
from tfscale.totals import Totals
from tfscale.training.loop import check_vocabulary

NO_CORPUS = "none"
"""Placeholder for the corpus fingerprint of a stage without a prepared corpus."""


def adopt(to: Path, found: Foreign, corpus: Path | None) -> StageSpec:
    """Write a model as the folder of a finished stage, and return the spec of the stage. To save memory, tensors are
    converted and written one at a time.

    Args:
        to: folder to create.
        found: model to write.
        corpus: folder of a prepared corpus for evaluations and for the comparison of logits during growth, or None. If
            a corpus is given, the stage uses the tokenizer of the corpus.

    Raises:
        UserFault: `to` exists, the tokenizer or the corpus cannot be read or has tokens that the model does not have,
            or the validation split is shorter than the context.
        OSError: the folder cannot be written. No partial files are left.
    """
    if to.exists():
        raise UserFault([f"--to {to}: must not exist; try another folder"])
    model, tokenizer = found.model, found.tokenizer
    spec = _spec(model, found.totals, corpus.absolute() if corpus else None)
    if tokenizer is not None:
        _check_tokenizer(tokenizer, model)
    with new_folder(to) as aside:
        counters = Counters(step=spec.steps, totals=found.totals or Totals())
        name = checkpoint.folder_name(spec.steps)
        digest = _write_checkpoint(aside / CHECKPOINTS / name, model, counters, found.tensors)
        spec = replace(spec, init_from=digest)
        write_json(aside / IMPORT_FILE, _record(found, digest))
        if tokenizer is not None and corpus is None:
            (aside / spec.run.data_dir).mkdir()
            (aside / spec.run.data_dir / TOKENIZER_FILE).write_bytes(tokenizer)
        write_spec(aside, spec)
        result = Result(
            key=key_of(spec),
            step=counters.step,
            tokens=spec.tokens,
            before=counters.before,
            totals=counters.totals,
            eval=None,
            checkpoint=name,
        )
        write_result(aside, result)
    return spec


def _spec(model: ModelConfig, totals: Totals | None, corpus: Path | None) -> StageSpec:
    data = DataSpec(NO_CORPUS, 0, 0, model.context)
    batch, tokens = model.context, totals.tokens if totals else 0
    # A stage needs an optimizer. The optimizer that trained this model is unknown, so the optimizer of the paper is
    # used.
    spec = StageSpec(
        label=f"{model.family}-{humanize(parameters(model))}",
        model=model,
        data=data,
        tokens=round(tokens / batch) * batch,
        batch_tokens=batch,
        optimizer=AdamW(lr=6e-4, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0),
        lr_schedule=LearningRateSchedule("cosine", 0, 0.0, 0.1, 0.0),
        seed=0,
        run=RunSpec(data_dir=str(corpus) if corpus else "data"),
        init_from="",
    )
    if corpus is None:
        return spec
    try:
        prepared = open_data(corpus)
        heldout = min(len(prepared.heldout) - 1, 65_536)
        spec = replace(spec, data=DataSpec(prepared.manifest.fingerprint, 0, 0, heldout // batch * batch))
        if heldout < batch:
            raise ValueError(f"{corpus}: the validation split is shorter than the model's context of {batch} tokens")
        check_vocabulary(spec, prepared)
    except ValueError as error:
        raise UserFault([f"--data {error}"]) from error
    return spec


def _check_tokenizer(content: bytes, model: ModelConfig) -> None:
    with user_faults():
        entries = Tokenizer(content, "--tokenizer").vocab_size
    if entries > model.vocab_size:
        rule = f"must have at most {model.vocab_size} entries, the vocabulary size of the model, but has {entries}"
        raise UserFault([f"--tokenizer: {rule}"])


def _write_checkpoint(folder: Path, model: ModelConfig, counters: Counters, tensors: Mapping[str, Tensor]) -> str:
    """Write the checkpoint and return a hash of the weights. Weights with equal float32 values have equal hashes."""
    folder.parent.mkdir()
    checkpoint.check_room(folder, 4 * parameters(model))
    wide = ((f"model/{name}", tensors[name].detach().to(torch.float32)) for name in sorted(tensors))
    checkpoint.write_aside(folder, model, counters, lambda aside: checkpoint.write_each(aside, wide))
    return weights_digest(folder)


def _record(found: Foreign, digest: str) -> dict[str, Any]:
    return {
        "format": found.format,
        "files": [{"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in found.files],
        "weights_sha256": digest,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": dict(found.settings),
    }
