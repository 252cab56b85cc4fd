"""Export of a finished stage as a folder that the libraries of Hugging Face can read.

transformers loads the code of the model from the folder with `trust_remote_code`. The code is generated from this
package and does not require tfscale.
"""

import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from safetensors.torch import save_file

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint
from tfscale.checkpoint.slots import check_slots
from tfscale.data.manifest import TOKENIZER_FILE
from tfscale.data.tokenizer import Tokenizer
from tfscale.faults import UserFault, user_faults
from tfscale.files import new_folder, write_json
from tfscale.grouping import grouped
from tfscale.interop.exported import CONFIG_FILE, INDEX_FILE, LINEAGE_FILE, MODEL_TYPE, PREFIX, WEIGHTS_FILE
from tfscale.interop.finished import FinishedStage, open_finished, tokenizer_of
from tfscale.models.config import ModelConfig
from tfscale.models.counts import parameters
from tfscale.models.families import to_dict
from tfscale.models.init import build_model
from tfscale.models.tokenformer import number_of_groups
from tfscale.stage.evaluations import read_evaluations
from tfscale.stage.folder import lineage
from tfscale.stage.growth_record import IMPORT_FILE
from tfscale.stage.result import to_dict as result_to_dict
from tfscale.stage.spec import key_fields

SHARD_BYTES = 4 * 10**9
"""Maximum size of a weights file in bytes, unless one tensor is larger."""
MODELING = "modeling_tfscale"
"""Name of the module that transformers loads. This module imports the other modules in the folder."""
_ENTRY = "tfscale.interop.hf_model"
_IMPORT = re.compile(r"^(\s*)from (tfscale(?:\.\w+)*) import\b", flags=re.MULTILINE)


def export(stage: FinishedStage, out: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the weights, config, tokenizer, code, model card and lineage of a stage to the folder `out`. The optimizer
    state is not exported.

    The required memory is about the size of one weights file.

    Raises:
        UserFault: `out` exists, an extension defines the model, the checkpoint is incomplete, damaged or contains the
            state of an optimizer that is not the stage's, or the tokenizer or an ancestor is missing.
        OSError: the folder cannot be written. No partial files are left.
    """
    if out.exists():
        raise UserFault([f"--out {out}: must not exist; try another folder"])
    model = stage.model
    if not type(model).__module__.startswith("tfscale."):
        rule = "must be tokenformer or transformer, because an export contains only code of tfscale"
        raise UserFault([f"model.family={model.family}: {rule}"])
    tokenizer, stages = tokenizer_of(stage), lineage(stage, _parent_of)
    with user_faults(BrokenCheckpoint), new_folder(out) as aside:
        _write_weights(stage, aside, shard_bytes)
        (aside / TOKENIZER_FILE).write_bytes(tokenizer.content)
        for name, values in _settings(model, tokenizer).items():
            write_json(aside / name, values)
        groups = {"groups": stage.groups} if stage.groups else {}
        write_json(aside / LINEAGE_FILE, groups | {"stages": [_record(each) for each in stages]})
        for name, text in sources().items():
            (aside / name).write_text(text, encoding="utf-8")
        (aside / "README.md").write_text(_model_card(stages), encoding="utf-8")


def _settings(model: ModelConfig, tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    end, end_id = tokenizer.end_of_text, tokenizer.end_of_text_id
    special = {"bos_token_id": end_id, "eos_token_id": end_id, "pad_token_id": end_id}
    return {
        CONFIG_FILE: {
            "architectures": ["TfscaleForCausalLM"],
            "auto_map": {
                "AutoConfig": f"{MODELING}.TfscaleConfig",
                "AutoModelForCausalLM": f"{MODELING}.TfscaleForCausalLM",
            },
            "model_type": MODEL_TYPE,
            "tfscale": to_dict(model),
            "vocab_size": model.vocab_size,
            "hidden_size": model.d_model,
            "num_hidden_layers": model.n_layer,
            "num_attention_heads": model.n_head,
            "max_position_embeddings": model.context,
            "tie_word_embeddings": True,
            "dtype": "float32",
            **special,
        },
        "generation_config.json": special,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end,
            "eos_token": end,
            "pad_token": end,
            "unk_token": end,
            "model_max_length": model.context,
            "clean_up_tokenization_spaces": False,
        },
    }


def _write_weights(stage: FinishedStage, folder: Path, shard_bytes: int) -> None:
    checkpoint.verify(stage.checkpoint)
    there = checkpoint.shapes(stage.checkpoint)
    _, counters = checkpoint.read_state(stage.checkpoint)
    check_slots(stage.checkpoint, there, stage.spec.optimizer, counters)  # lineage.json names the optimizer
    weights = build_model(stage.model, device="meta").named_parameters()
    shapes = {f"model/{name}": weight.shape for name, weight in weights}
    shards = list(grouped(sorted(shapes), lambda name: 4 * shapes[name].numel(), shard_bytes))
    placed: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = WEIGHTS_FILE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: torch.empty(there.get(name, shapes[name])) for name in names}
        checkpoint.read(stage.checkpoint, tensors)
        renamed = {PREFIX + name.removeprefix("model/"): tensors[name][: shapes[name][0]] for name in names}
        save_file(renamed, folder / file, metadata={"format": "pt"})
        placed |= dict.fromkeys(renamed, file)
    if len(shards) > 1:
        total = 4 * sum(shape.numel() for shape in shapes.values())
        write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": placed})


def _parent_of(stage: FinishedStage) -> FinishedStage | None:
    parent = stage.spec.parent_dir
    return None if parent is None else open_finished((stage.folder / parent).resolve())


def _record(stage: FinishedStage) -> dict[str, Any]:
    result = result_to_dict(stage.result)
    return {
        "stage": stage.folder.resolve().name,
        "key": stage.result.key,
        "parameters": parameters(stage.spec.model),
        "growth": stage.spec.growth,
        "imported": stage.spec.init_from if (stage.folder / IMPORT_FILE).exists() else None,
        "tokens": stage.spec.tokens,
        "before": result["before"],
        "totals": result["totals"],
        "eval": result["eval"],
        "spec": key_fields(stage.spec),
    }


def _model_card(stages: Sequence[FinishedStage]) -> str:
    """Return the README.md for the last of the given stages. The other stages are its ancestors, oldest first."""
    stage = stages[-1]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # noqa: S701 (Markdown, not HTML)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md").render(
        stages=stages,
        stage=stage,
        model=stage.model,
        groups=number_of_groups(stage.spec.model),
        evaluation=stage.evaluation,
        entries=[] if stage.groups else read_evaluations(stage.folder),
        imported=any(each.spec.init_from is not None for each in stages),
        parameters=parameters,
        release=_release(),
    )


def sources() -> dict[str, str]:
    """Return the source texts of all modules that an exported model needs, by file name. In these texts, imports from
    tfscale are relative imports."""
    found: dict[str, str] = {}
    waiting = [_ENTRY]
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        text = _path(module).read_text(encoding="utf-8")
        assert not re.search(r"^\s*import tfscale", text, flags=re.MULTILINE), f"{module}: import names, not modules"
        needed = [match[2] for match in _IMPORT.finditer(text)]
        assert all(_path(name).is_file() for name in needed), f"{module}: imports a package; import from its modules"
        found[module] = _IMPORT.sub(lambda match: f"{match[1]}from .{_name(match[2])} import", text)
        waiting += needed
    found[_ENTRY] += _imports(sorted(found.keys() - {_ENTRY}))
    return {f"{_name(module)}.py": _head(module) + text for module, text in sorted(found.items())}


def _imports(modules: Sequence[str]) -> str:
    lines = [f"from .{_name(module)} import __name__ as _{_name(module)}" for module in modules]
    return "\n".join(["\n# transformers 5.0 copies only the files that this file imports.", *lines, ""])


def _path(module: str) -> Path:
    return Path(__file__).parents[1].joinpath(*module.split(".")[1:]).with_suffix(".py")


def _name(module: str) -> str:
    return MODELING if module == _ENTRY else module.replace(".", "_")


def _head(module: str) -> str:
    return f"# Generated by `tfscale export` ({_release()}) from {module.replace('.', '/')}.py. License: Apache-2.0.\n"


def _release() -> str:
    """Return the name and version of tfscale as text, such as `tfscale 0.2.0`."""
    try:
        return f"tfscale {version('tfscale')}"
    except PackageNotFoundError:
        return "tfscale from its source tree"
