"""The contract of one stage: what `stage.yaml` says. The orchestrator writes it, `python -m tfscale.training` obeys it.

`stage.yaml` is written in the JSON subset of YAML, so that the training room needs no YAML parser.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tfscale.models.config import ModelConfig
from tfscale.models.families import from_dict, to_dict
from tfscale.optimizers import base as optimizers
from tfscale.optimizers.base import Optimizer
from tfscale.stage import how
from tfscale.untrusted import check_fields

STAGE_FILE = "stage.yaml"
CHECKPOINTS = "checkpoints"
"""Folder of a stage's checkpoints, `step-*`."""


@dataclass(frozen=True)
class DataSpec:
    """Which tokens, in which order."""

    fingerprint: str
    """Of the prepared corpus: source, tokenizer and split."""
    order_seed: int
    start: int
    """Position in the order, in tokens, of the stage's first batch."""
    heldout_tokens: int
    """Evaluation reads this many tokens of the held-out split, always the same ones."""
    heldout_start: int = 0
    """Position in the held-out split of the first of them."""


@dataclass(frozen=True)
class ScheduleSpec:
    """Learning rate over the stage: a linear warm-up from `warmup_from`, then `kind`."""

    kind: Literal["cosine", "wsd", "constant"]
    warmup_tokens: int
    warmup_from: float
    """Learning rate at the start of the warm-up: 0, or the parent's last one."""
    floor: float
    """Last learning rate as a fraction of the peak; for cosine and wsd."""
    decay: float
    """wsd: the last fraction of the stage, over which the rate falls linearly to the floor."""


@dataclass(frozen=True)
class RateSpec:
    """Learning rates of a grown stage, apart for what its parent trained and for its new parameter tokens."""

    rows: tuple[int, int, int]
    """Parameter tokens of (each of q, k, v; output; feed-forward) before growth, copies included: rows of the keys and
    values from there on are new."""
    old: float
    """Factor of the learning rate of what the parent trained, at the start."""
    old_ramp_tokens: int
    """Over which it rises linearly to 1; 0: it stays."""
    frozen_tokens: int
    """In which it is 0; the ramp's tokens are counted along."""
    new: float
    """Factor of the learning rate of new rows."""
    per_row_bias: bool
    """Whether AdamW's bias correction counts the steps of new rows from the growth."""
    new_second_moment: bool
    """Whether that holds for the second moment too: it began empty."""


@dataclass(frozen=True)
class EndingSpec:
    """When a stage ends, if not with its budget (`tfscale.stage.ending`). The held-out loss is looked at every
    `every_tokens` tokens."""

    rule: Literal["plateau", "predicted_gain"]
    every_tokens: int
    """A multiple of the stage's batch_tokens."""
    least: float
    """Nats."""
    looks: int
    most_tokens: int
    """The stage's budget: it never gets more."""


@dataclass(frozen=True)
class RunSpec:
    """How the stage is run. Nothing here is part of the stage's key; all of it may change between resumes."""

    data_dir: str
    """Folder of the prepared corpus, absolute or relative to the stage's folder."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 autocast on CUDA, fp32 on the CPU. Weights and moments are always fp32."""
    threads: int = 0
    """CPU threads; 0: as many as torch takes by itself."""
    lanes: int = 1
    """Batches that an evaluation on a CPU works on at the same time, with so many threads each, if they fit."""
    compile: Literal["auto", "on", "off"] = "auto"
    """`auto`: torch.compile on CUDA, eager on the CPU."""
    micro_batch: int = 0
    """Sequences a device holds at once; 0: as many of a batch as the memory model says fit and, on CUDA, a dry step
    finds. Gradients accumulate over the micro-batches of a batch."""
    recompute: Literal["auto", "none", "pattention", "blocks"] = "auto"
    """What the backward pass makes again instead of keeping it (`tfscale.models.execution`). `auto`: nothing, unless
    one sequence would not fit otherwise."""
    sharding: Literal["auto", "none", "full", "hybrid"] = "auto"
    """Of several processes: `none` keeps the whole model on each (DDP), `full` divides it among all (FSDP2), `hybrid`
    among the processes of a host (HSDP). `auto`: `none` if the model fits on each, else `full`."""
    update: Literal["whole", "in_backward"] = "whole"
    """`in_backward`: each weight is updated as soon as the backward pass has made its gradient, which is then dropped.
    Saves the memory of the gradients; needs the whole batch as one micro-batch, one process and no clipping."""
    log_tokens: int = 0
    """Tokens between two training events; 0: a hundred a stage."""
    eval_tokens: int = 0
    """Tokens between two evaluations; 0: ten a stage, fewer where they would take more than a tenth of its training
    (`tfscale.training.evaluation`). The end of a stage is always evaluated, and a grown model before its first step."""
    checkpoint_minutes: float = 10.0
    checkpoint_tokens: int = 0
    """Tokens between two checkpoints, beside those by time; 0: by time alone."""
    keep: int = 2
    """Checkpoints that stay while a stage runs. The last one stays for good."""
    keep_tokens: int = 0
    """Checkpoints at multiples of so many tokens stay for good; 0: none but the last."""
    non_finite: Literal["raise", "skip", "rollback"] = "raise"
    """What to do about a loss or gradient that is no number, before it reaches the weights. `raise`: stop. `skip`: go
    on without the step's update. `rollback`: go on from the last checkpoint, and past the batch."""
    non_finite_cap: int = 10
    """More such steps than this end the stage, whatever the policy."""


@dataclass(frozen=True)
class StageSpec:
    """One stage of training."""

    label: str
    """For people; not part of the key."""
    model: ModelConfig
    data: DataSpec
    tokens: int
    """The stage's budget, a multiple of batch_tokens; with an `ending`, what came out where that is known."""
    batch_tokens: int
    """Tokens an optimizer step, over all devices and micro-batches: a multiple of the model's context."""
    optimizer: Optimizer
    schedule: ScheduleSpec
    seed: int
    """Of the initial weights, or of the rows that growth adds."""
    run: RunSpec
    parent: str | None = None
    """Key of the stage that this one starts from."""
    parent_dir: str | None = None
    """Its folder, absolute or relative to this stage's folder. Not part of the key."""
    growth: dict[str, Any] | None = field(default=None)
    """The growth recipe, read by the growth room alone."""
    rates: RateSpec | None = None
    """None: one learning rate for all weights."""
    ending: EndingSpec | None = None
    """None: it ends with its budget."""
    parent_ending: bool = False
    """Whether the parent's end was decided by a rule. Where its text and its learning rate stopped then follows from
    its key, and is no part of this stage's."""
    init_from: str | None = None
    """SHA-256 of weights that were taken over from elsewhere: the stage was trained there, and here it is only
    evaluated. Its tokens are 0 where what they were is not known."""
    init_dir: str | None = None
    """The imported stage that they are taken from; None of that itself. Not part of the key."""

    @property
    def inherits(self) -> bool:
        """Whether it begins from weights that others have made."""
        return self.parent is not None or self.init_from is not None

    def from_scratch(self, model: ModelConfig, tokens: int) -> "StageSpec":
        """A stage of its kind that begins from first values of its own."""
        return replace(
            self, model=model, tokens=tokens, rates=None, init_from=None, init_dir=None,
            parent=None, parent_dir=None, parent_ending=False, growth=None,
        )  # fmt: skip

    @property
    def steps(self) -> int:
        """Optimizer steps of the stage."""
        return self.tokens // self.batch_tokens

    @property
    def sequences(self) -> int:
        """Sequences an optimizer step."""
        return self.batch_tokens // self.model.context


def steps_of(tokens: int, spec: StageSpec) -> int:
    """Optimizer steps nearest to a number of tokens, at least one."""
    return max(1, round(tokens / spec.batch_tokens))


def spec_to_dict(spec: StageSpec) -> dict[str, Any]:
    """Plain values for JSON; `spec_from_dict` reads them back."""
    return {**asdict(spec), "model": to_dict(spec.model), "optimizer": optimizers.to_dict(spec.optimizer)}


def what_of(spec: StageSpec) -> dict[str, Any]:
    """The fields that say what a stage computes, as plain values, and nothing of how or where it is run."""
    return how.without(spec_to_dict(spec), how.STAGE)


def spec_from_dict(values: dict[str, Any]) -> StageSpec:
    """The spec that `spec_to_dict` wrote.

    Raises:
        ValueError, TypeError, KeyError: a missing, unknown or wrong field.
    """
    values = {"rates": None, "ending": None, **values}
    rates, ending = values["rates"], values["ending"]
    return StageSpec(
        **{
            **values,
            "ending": None if ending is None else EndingSpec(**ending),
            "rates": None if rates is None else RateSpec(**{**rates, "rows": tuple(rates["rows"])}),
            "model": from_dict(values["model"]),
            "data": DataSpec(**values["data"]),
            "optimizer": optimizers.from_dict(values["optimizer"]),
            "schedule": ScheduleSpec(**values["schedule"]),
            "run": RunSpec(**values["run"]),
        }
    )


def key_of(spec: StageSpec) -> str:
    """The stage's identity, 12 hex digits: a hash of everything that changes what it computes, its parent's key
    included, and of nothing else."""
    what = what_of(spec)
    for name in ("init_from", "rates", "ending", "parent_ending"):
        if not what[name]:
            del what[name]  # as in the keys of stages from before it was there
    if spec.data.heldout_start == 0:
        del what["data"]["heldout_start"]  # likewise
    if spec.ending is not None:
        del what["tokens"]  # follows from the rule
    if spec.parent_ending:
        del what["data"]["start"], what["schedule"]["warmup_from"]  # follow from the parent
    if spec.growth is not None:
        what["growth"] = {name: value for name, value in spec.growth.items() if name != "name"}
    canonical = json.dumps(what, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def read_spec(stage_dir: Path) -> StageSpec:
    """The spec of a stage's folder.

    Raises:
        ValueError: the file is missing or not a stage; the message names it.
    """
    path = stage_dir / STAGE_FILE
    try:
        spec = spec_from_dict(json.loads(path.read_text(encoding="utf-8")))
        check_fields(spec)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}. A stage's folder is written by `tfscale run`.") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: not a stage of this version of tfscale: {error}") from error
    faults = list(_faults(spec))
    if faults:
        raise ValueError(f"{path}: {'; '.join(faults)}")
    return spec


def _faults(spec: StageSpec) -> Iterator[str]:
    """What a stage that `tfscale run` wrote never is, and one that was edited may be."""
    context, schedule, run = spec.model.context, spec.schedule, spec.run
    least = 1 if spec.init_from is None else 0
    if spec.batch_tokens < 1 or spec.batch_tokens % context:
        yield f"batch_tokens={spec.batch_tokens}: must be a multiple of model.context={context}"
    elif spec.tokens < least or spec.tokens % spec.batch_tokens:
        yield f"tokens={spec.tokens}: must be a multiple of batch_tokens={spec.batch_tokens}"
    if spec.ending is not None and spec.batch_tokens > 0:
        yield from _ending_faults(spec, spec.ending)
    if spec.data.heldout_tokens < context:
        yield f"data.heldout_tokens={spec.data.heldout_tokens}: must be at least model.context={context}"
    yield from (f"optimizer.{fault}" for fault in spec.optimizer.faults())
    if spec.rates is not None and not spec.optimizer.row_wise:
        yield f"rates: must be null with optimizer.name={spec.optimizer.name}, which does not update rows on their own"
    for name, fraction in (("floor", schedule.floor), ("decay", schedule.decay)):
        if not 0 <= fraction <= 1:
            yield f"schedule.{name}={fraction}: must be a fraction, 0 to 1"
    if run.keep < 1 or run.non_finite_cap < 1:
        yield f"run.keep={run.keep}, run.non_finite_cap={run.non_finite_cap}: must be at least 1"
    parts = {"data": (spec.data, ("start", "heldout_start")),
             "schedule": (schedule, ("warmup_tokens", "warmup_from")),
             "run": (run, ("threads", "lanes", "micro_batch", "log_tokens", "eval_tokens", "checkpoint_minutes",
                           "checkpoint_tokens", "keep_tokens"))}  # fmt: skip
    for part, (values, names) in parts.items():
        for name in names:
            if getattr(values, name) < 0:
                yield f"{part}.{name}={getattr(values, name)}: must be at least 0"
    if (spec.parent is None) != (spec.parent_dir is None) or (spec.parent is None) != (spec.growth is None):
        yield "parent, parent_dir and growth: must stand together or not at all"


def _ending_faults(spec: StageSpec, ending: EndingSpec) -> Iterator[str]:
    for name in ("every_tokens", "most_tokens"):
        value = getattr(ending, name)
        if value < 1 or value % spec.batch_tokens:
            yield f"ending.{name}={value}: must be a multiple of batch_tokens={spec.batch_tokens}"
    if spec.tokens > ending.most_tokens:
        yield f"tokens={spec.tokens}: must be at most ending.most_tokens={ending.most_tokens}"
    if spec.schedule.kind == "cosine":
        yield "schedule.kind=cosine: its length has to be known, so it cannot have an ending; wsd and constant can"
    if ending.looks < 1 or not ending.least > 0:
        yield f"ending.looks={ending.looks}, ending.least={ending.least}: must be at least 1 and above 0"
