"""Small stages on a synthetic corpus, and processes that train and grow these stages. The files and processes are like
those of `tfscale data prepare` and `tfscale run`, but only the libraries that training needs must be installed."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import Popen
from typing import Literal

import numpy as np

from tfscale import children
from tfscale.bench.sizes import tokenformer
from tfscale.data.manifest import FORMAT, Manifest, ShardRecord, SplitRecord, TokenizerRecord, write_manifest
from tfscale.data.shards import ShardLabel, TokenArray, header_of, token_dtype
from tfscale.models.config import ModelConfig
from tfscale.optimizers.adamw import AdamW
from tfscale.stage.events import Event, read_events
from tfscale.stage.spec import DataSpec, LearningRateSchedule, RunSpec, StageSpec
from tfscale.training.allocator import allocator

FINGERPRINT = "0" * 16
TOKENIZER = hashlib.sha256(b"no tokenizer").hexdigest()
SUCCESSORS = 4
"""Number of random tokens that may follow each token of the synthetic corpus. The first of them follows with a
probability of 0.7, so a model can learn to predict it."""
SHARES = (0.7, 0.1, 0.1, 0.1)
ROWS = 16
"""Number of parameter tokens of each attention projection. The feed-forward layer has four times as many."""
UNREACHED_NORM = 1e6
LOG_CHARACTERS = 600


def write_corpus(folder: Path, vocabulary: int, train_tokens: int, heldout_tokens: int) -> None:
    """Write a prepared corpus of synthetic tokens, which depend only on the vocabulary and the numbers of tokens."""
    folder.mkdir(parents=True)
    tokens = _tokens(vocabulary, train_tokens + heldout_tokens)
    write_manifest(
        folder,
        Manifest(
            format=FORMAT,
            fingerprint=FINGERPRINT,
            source={"source": "made up"},
            content_sha256=hashlib.sha256(tokens.tobytes()).hexdigest(),
            heldout_fraction=heldout_tokens / len(tokens),
            split_seed=0,
            empty=0,
            duplicates=0,
            tokenizer=TokenizerRecord("bpe", vocabulary, "<|endoftext|>", 0, TOKENIZER, "none"),
            train=_split(folder, "train", tokens[:train_tokens]),
            heldout=_split(folder, "heldout", tokens[train_tokens:]),
        ),
    )


def _tokens(vocabulary: int, count: int) -> TokenArray:
    random = np.random.default_rng(0)
    successors = random.integers(vocabulary, size=(vocabulary, SUCCESSORS)).tolist()
    token, tokens = 0, []
    for choice in random.choice(SUCCESSORS, size=count, p=SHARES).tolist():
        token = successors[token][choice]
        tokens.append(token)
    return np.asarray(tokens, token_dtype(vocabulary))


def _split(folder: Path, name: Literal["train", "heldout"], tokens: TokenArray) -> SplitRecord:
    path = folder / f"{name}-00000.safetensors"
    label = ShardLabel(str(FORMAT), FINGERPRINT, TOKENIZER, name)
    content = header_of(label, tokens.dtype, len(tokens)) + tokens.tobytes()
    path.write_bytes(content)
    shard = ShardRecord(path.name, len(tokens), len(content), hashlib.sha256(content).hexdigest())
    return SplitRecord(documents=1, tokens=len(tokens), utf8_bytes=len(tokens), shards=(shard,))


def small_stage(run: RunSpec, steps: int) -> StageSpec:
    """Return the spec of a stage that trains a small TokenFormer from scratch. The clipping threshold is so high that
    gradients are never clipped."""
    model = tokenformer(ROWS, n_layer=2, d=32, heads=2, context=64, vocabulary=257)
    made = stage(replace(model, init="scaled"), run, steps, sequences=8, lr=0.01)
    return replace(made, optimizer=replace(made.optimizer, clip=UNREACHED_NORM))


def stage(model: ModelConfig, run: RunSpec, steps: int, sequences: int, lr: float) -> StageSpec:
    """Return the spec of a stage that trains a model from scratch on the synthetic corpus. The stage has `steps`
    optimizer steps with batches of `sequences` sequences, and the peak learning rate `lr`."""
    batch = sequences * model.context
    return StageSpec(
        label="check",
        model=model,
        data=DataSpec(FINGERPRINT, order_seed=0, start=0, heldout_tokens=32 * model.context),
        tokens=steps * batch,
        batch_tokens=batch,
        optimizer=AdamW(lr=lr, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0),
        lr_schedule=LearningRateSchedule("cosine", warmup_tokens=4 * batch, warmup_from=0.0, floor=0.1, decay=0.2),
        seed=0,
        run=run,
    )


class StageFailed(Exception):
    """Error raised if the process of a stage ends with an unexpected exit code, or before it can be stopped."""


@dataclass(frozen=True)
class StageProcess:
    """Process that trains or grows a stage."""

    folder: Path
    process: Popen[bytes]

    def finish(self, expected: int = 0) -> None:
        """Wait until the process has ended, and raise StageFailed if its exit code is not `expected`."""
        code = self.process.wait()
        if code != expected:
            end = _log(self.folder).read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
            raise StageFailed(f"{self.folder.name}: exit code {code}, expected {expected}: {end}")


def start_training(folder: Path, module: str = "tfscale.training") -> StageProcess:
    """Start a process that trains a stage, or that grows it if `module` is `tfscale.growth`."""
    command = children.python(module, str(folder), "--supervised")
    environment = children.environment(defaults=allocator())
    with _log(folder).open("ab") as output:
        return StageProcess(folder, children.start(command, environment, stdout=output, stderr=output))


def _log(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def events_of(folder: Path, kind: str) -> list[Event]:
    """Return the events of one kind, such as `train`, that a stage has recorded."""
    return [event for event in read_events(folder) if event["event"] == kind]
