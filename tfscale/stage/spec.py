"""Specification (spec) of one stage. The orchestrator writes the spec to `stage.yaml` as JSON, which is a subset of
YAML, so that `python -m tfscale.training` needs no YAML parser."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tfscale.extensions import require_extensions
from tfscale.files import write_json
from tfscale.models.config import ModelConfig
from tfscale.models.families import from_dict, to_dict
from tfscale.models.tokenformer import number_of_groups
from tfscale.optimizers import base as optimizers
from tfscale.optimizers.base import Optimizer
from tfscale.ranges import Count, Fraction, Natural, NonNegative, Positive, Probability
from tfscale.stage import how
from tfscale.stage.run_options import RunOptions
from tfscale.untrusted import check_fields

STAGE_FILE = "stage.yaml"
CHECKPOINTS = "checkpoints"
"""Name of the folder, within the stage folder, that contains the checkpoints `step-*` of a stage."""


@dataclass(frozen=True)
class DataSpec:
    """Specification of the tokens that a stage reads, and of the order of the tokens."""

    fingerprint: str
    """Fingerprint of the prepared corpus, which identifies the source, the tokenizer and the split."""
    order_seed: int
    """Seed of the order in which training tokens are read (`data.shuffle_seed`)."""
    start: Natural
    """Position of the stage's first batch in the order of the training tokens, in tokens."""
    heldout_tokens: int
    """Number of validation tokens that every evaluation reads. All evaluations read the same tokens."""
    heldout_start: Natural = 0
    """Position of the first evaluated token in the validation split."""


@dataclass(frozen=True)
class LearningRateSchedule:
    """Learning-rate schedule of a stage: a linear warm-up from `warmup_from` to the peak, and then the shape that
    `kind` selects."""

    kind: Literal["cosine", "wsd", "constant"]
    warmup_tokens: Natural
    warmup_from: NonNegative
    """Learning rate at the start of the warm-up: 0, or the last learning rate of the parent."""
    floor: Fraction
    """Final learning rate of the stage as a fraction of the peak. Used by cosine and wsd."""
    decay: Fraction
    """Length of the final decay, in which the learning rate falls linearly to the floor, as a fraction of the stage.
    Used by wsd."""


@dataclass(frozen=True)
class RateSpec:
    """Separate learning rates in a grown stage for the weights that the parent trained and for new parameter tokens."""

    rows: tuple[int, int, int]
    """Numbers of old parameter tokens, including copies, in each of the query, key and value projections, in the output
    projection, and in the feed-forward layer. Later rows of the Pattention keys and values are new."""
    old: float
    """Initial factor of the learning rate of the weights that the parent trained."""
    old_ramp_tokens: int
    """Number of tokens over which the learning-rate factor of the weights that the parent trained changes linearly from
    `old` to 1; 0: the factor is always `old`."""
    frozen_tokens: int
    """Number of tokens, from the beginning of the stage, during which the learning rate of the old weights is 0. These
    tokens count towards `old_ramp_tokens`."""
    new: float
    """Factor of the learning rate of the rows that the growth added."""
    per_row_bias: bool
    """True if the bias correction of AdamW for new rows counts only the steps since the growth."""
    new_second_moment: bool
    """True if the second moment of new rows starts at 0, so that their bias correction must include it."""
    new_ramp_tokens: Natural = 0
    """Number of tokens over which the learning-rate factor of the rows that the growth added changes linearly from 1 to
    `new`. The factor then returns linearly to 1 over the same number of tokens. 0: the factor is always `new`."""


@dataclass(frozen=True)
class EndingSpec:
    """Rule that may end a stage before its budget is spent (`tfscale.stage.ending`)."""

    rule: Literal["plateau", "predicted_gain"]
    every_tokens: Count
    """Number of tokens between two checks of the validation loss. It must be a multiple of the stage's batch_tokens."""
    least: Positive
    """Minimum improvement of the validation loss in nats per token. A smaller improvement ends the stage."""
    looks: Count
    """With `plateau`, the number of checks over which the improvement is measured. With `predicted_gain`, the minimum
    number of checks."""
    most_tokens: Count
    """Budget of the stage in tokens, which is never exceeded."""


@dataclass(frozen=True)
class TrialSpec:
    """Test that accepts a growth, or rejects it and ends the stage (`tfscale.stage.ending`)."""

    tokens: Count
    """Number of tokens after which the validation loss is tested. It must be a multiple of the stage's batch_tokens."""
    bound: float
    """Maximum amount, in nats per token, by which the validation loss after `tokens` tokens may exceed the parent's
    last validation loss."""
    most_tokens: Count
    """Budget of the stage in tokens if the growth is kept."""


@dataclass(frozen=True)
class RunSpec(RunOptions):
    """Run options of a stage, which are not part of the key of the stage."""

    data_dir: str = field(kw_only=True)
    """Folder of the prepared corpus, absolute or relative to the folder of the stage."""
    lanes: Count = 1
    """Maximum number of batches that an evaluation processes at the same time, each with `threads` threads. Used only
    by a single process on a CPU without compilation. If memory is insufficient, fewer batches are processed at the same
    time."""


@dataclass(frozen=True)
class StageSpec:
    """Specification of the training of one stage."""

    label: str
    """Readable name of the stage, which is not part of the key."""
    model: ModelConfig
    data: DataSpec
    tokens: Natural
    """Number of training tokens, a multiple of batch_tokens. This is the budget or, if an `ending` or a `trial` has
    decided the end of the stage, the actual number."""
    batch_tokens: Count
    """Number of tokens per optimizer step over all devices and micro-batches, a multiple of the model's context."""
    optimizer: Optimizer
    lr_schedule: LearningRateSchedule
    seed: int
    """Random seed of the stage, used for example for the initial weights or the rows that growth adds."""
    run: RunSpec
    parent: str | None = None
    """Key of the parent, which is the previous stage of the lineage, or None for a stage without a parent."""
    parent_dir: str | None = None
    """Folder of the parent, absolute or relative to the folder of this stage. The folder is not part of the key."""
    growth: dict[str, Any] | None = None
    """Settings of the growth (`tfscale.growth.operator.Growth`), or None for a stage without a parent."""
    rates: RateSpec | None = None
    """Separate learning rates of old and new rows; None: one learning rate for all weights."""
    nested_dropout: Probability = 0.0
    """Probability with which a step uses only the first groups of parameter tokens (`tfscale.training.calendar`). The
    FLOPs of such a step are counted as for the whole model."""
    ending: EndingSpec | None = None
    """Rule that may end the stage early; None: the stage ends when its budget is spent."""
    trial: TrialSpec | None = None
    """Test that accepts or rejects the growth; None: the growth is kept."""
    returns: bool = False
    """True if the stage starts from the weights of its parent's parent, because the growth of its parent was rejected.
    The cost of the stage's lineage includes the parent."""
    parent_ending: bool = False
    """True if a stopping rule or a trial decides the end of the parent or, for a branch, the end of an earlier
    ancestor. The parent's last data position and learning rate then follow from the parent's key and are not part of
    the key of this stage."""
    init_from: str | None = None
    """SHA-256 hash of the imported weights, which were trained elsewhere; None: no weights are imported. With imported
    weights, `tokens` is the number of tokens that they were trained on, or 0 if this number is unknown."""
    init_dir: str | None = None
    """Folder of the imported stage from which the weights are copied, which is not part of the key. None for the
    imported stage itself, and if no weights are imported."""
    extensions: tuple[str, ...] = ()
    """Extensions whose classes the stage uses, each as `module==version`."""

    @property
    def may_end_early(self) -> bool:
        """True if a rule or a trial may end the stage before its budget is spent."""
        return self.ending is not None or self.trial is not None

    @property
    def rejected(self) -> bool:
        """True if the growth was rejected. Valid only if `tokens` is the actual number of training tokens
        (`tfscale.stage.folder.as_it_ended`)."""
        return self.trial is not None and self.tokens == self.trial.tokens

    @property
    def inherits(self) -> bool:
        """True if the stage starts from existing weights, which are either those of a parent or imported."""
        return self.parent is not None or self.init_from is not None

    def from_scratch(self, model: ModelConfig, tokens: int) -> "StageSpec":
        """Return a copy of this spec for training `model` from scratch for `tokens` tokens, without a parent."""
        return replace(
            self, model=model, tokens=tokens, rates=None, nested_dropout=0.0, init_from=None, init_dir=None,
            parent=None, parent_dir=None, parent_ending=False, growth=None, trial=None, returns=False,
        )  # fmt: skip

    @property
    def steps(self) -> int:
        """Number of optimizer steps of the stage."""
        return self.tokens // self.batch_tokens

    @property
    def sequences(self) -> int:
        """Number of sequences per optimizer step."""
        return self.batch_tokens // self.model.context


_FILE_NAMES = {"lr_schedule": "schedule", "activation_checkpointing": "recompute"}
"""Names in `stage.yaml` of the fields that have another name in Python, by the name in Python. The key of a stage is
computed with the names in the file."""
_FIELDS = {name: field for field, name in _FILE_NAMES.items()}


def steps_of(tokens: int, spec: StageSpec) -> int:
    """Return the number of optimizer steps for `tokens` tokens, rounded to the nearest whole number, at least 1."""
    return max(1, round(tokens / spec.batch_tokens))


def spec_to_dict(spec: StageSpec) -> dict[str, Any]:
    """Return a spec as a dictionary for JSON, which `spec_from_dict` converts back."""
    parts = {"model": to_dict(spec.model), "optimizer": optimizers.to_dict(spec.optimizer)}
    values = _renamed({**asdict(spec), **parts, "run": _renamed(asdict(spec.run), _FILE_NAMES)}, _FILE_NAMES)
    for name in ("extensions", "nested_dropout", "trial", "returns"):
        if not values[name]:
            del values[name]  # as in files from before the field existed
    if not spec.run.deterministic:
        del values["run"]["deterministic"]  # for the same reason
    if spec.rates is not None and not spec.rates.new_ramp_tokens:
        del values["rates"]["new_ramp_tokens"]  # for the same reason
    if spec.run.kernels == "compiled":
        del values["run"]["kernels"]  # for the same reason
    return values


def _renamed(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in dict(values).items()}


def key_fields(spec: StageSpec) -> dict[str, Any]:
    """Return the fields of a spec that determine what the stage computes, as a dictionary for JSON. The fields in
    `how.STAGE` are omitted."""
    return how.without(spec_to_dict(spec), how.STAGE)


def write_spec(stage_dir: Path, spec: StageSpec) -> None:
    """Write a spec to stage.yaml in the folder of a stage, atomically."""
    write_json(stage_dir / STAGE_FILE, spec_to_dict(spec))


def spec_from_dict(values: dict[str, Any]) -> StageSpec:
    """Return the spec described by a dictionary from `spec_to_dict`.

    Raises:
        ValueError, TypeError, KeyError: a field is missing, unknown or invalid.
    """
    values = {"rates": None, "ending": None, "trial": None, "extensions": (), **_renamed(values, _FIELDS)}
    require_extensions(map(str, values["extensions"]))
    rates, ending, trial = values["rates"], values["ending"], values["trial"]
    return StageSpec(
        **{
            **values,
            "extensions": tuple(values["extensions"]),
            "ending": None if ending is None else EndingSpec(**ending),
            "trial": None if trial is None else TrialSpec(**trial),
            "rates": None if rates is None else RateSpec(**{**rates, "rows": tuple(rates["rows"])}),
            "model": from_dict(values["model"]),
            "data": DataSpec(**values["data"]),
            "optimizer": optimizers.from_dict(values["optimizer"]),
            "lr_schedule": LearningRateSchedule(**values["lr_schedule"]),
            "run": RunSpec(**_renamed(values["run"], _FIELDS)),
        }
    )


def key_of(spec: StageSpec) -> str:
    """Return the key of a stage, 12 hex digits. The key is a hash of the fields that change what the stage computes,
    including the key of the parent."""
    what = key_fields(spec)
    for name in ("init_from", "rates", "ending", "parent_ending"):
        if not what[name]:
            del what[name]  # as in the keys of stages from before the field existed
    if spec.data.heldout_start == 0:
        del what["data"]["heldout_start"]  # for the same reason
    if spec.may_end_early:
        del what["tokens"]  # follows from the rule
    if spec.parent_ending:
        del what["data"]["start"], what["schedule"]["warmup_from"]  # follow from the parent
    if spec.growth is not None:
        what["growth"] = {name: value for name, value in spec.growth.items() if name != "name"}
    canonical = json.dumps(what, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def read_spec(stage_dir: Path) -> StageSpec:
    """Return the spec in the folder of a stage. Raise ValueError if the spec is missing or invalid."""
    path = stage_dir / STAGE_FILE
    try:
        spec = spec_from_dict(json.loads(path.read_text(encoding="utf-8")))
        check_fields(spec)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}. The folder does not contain a stage.") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: the file is not a valid stage of this version of tfscale: {error}") from error
    faults = list(_faults(spec))
    if faults:
        raise ValueError(f"{path}: {'; '.join(faults)}")
    return spec


def _faults(spec: StageSpec) -> Iterator[str]:
    """Yield a message for each invalid combination of fields, which can only occur in a `stage.yaml` that was
    edited."""
    context = spec.model.context
    if spec.batch_tokens % context:
        yield f"batch_tokens={spec.batch_tokens}: must be a multiple of model.context={context}"
    elif (spec.tokens == 0 and spec.init_from is None) or spec.tokens % spec.batch_tokens:
        yield f"tokens={spec.tokens}: must be a positive multiple of batch_tokens={spec.batch_tokens}"
    if spec.ending is not None:
        yield from _ending_faults(spec, spec.ending)
    if spec.trial is not None:
        yield from _trial_faults(spec, spec.trial)
    if spec.data.heldout_tokens < context:
        yield f"data.heldout_tokens={spec.data.heldout_tokens}: must be at least model.context={context}"
    if spec.rates is not None and not spec.optimizer.row_rates:
        yield f"rates: must be null with optimizer.name={spec.optimizer.name}, which has one learning rate for all rows"
    if spec.nested_dropout and number_of_groups(spec.model) == 1:
        yield f"nested_dropout={spec.nested_dropout}: must be 0 with one group of parameter tokens per layer"
    if (spec.parent is None) != (spec.parent_dir is None) or (spec.parent is None) != (spec.growth is None):
        yield "parent, parent_dir and growth: must be set together or not at all"


def _ending_faults(spec: StageSpec, ending: EndingSpec) -> Iterator[str]:
    for name in ("every_tokens", "most_tokens"):
        value = getattr(ending, name)
        if value % spec.batch_tokens:
            yield f"ending.{name}={value}: must be a multiple of batch_tokens={spec.batch_tokens}"
    if spec.tokens > ending.most_tokens:
        yield f"tokens={spec.tokens}: must be at most ending.most_tokens={ending.most_tokens}"
    if spec.lr_schedule.kind == "cosine":
        yield "schedule.kind=cosine: must be wsd or constant with an ending, because cosine needs a fixed length"


def _trial_faults(spec: StageSpec, trial: TrialSpec) -> Iterator[str]:
    if trial.tokens % spec.batch_tokens or not trial.tokens < trial.most_tokens:
        rule = f"must be a multiple of batch_tokens={spec.batch_tokens} and less than most_tokens={trial.most_tokens}"
        yield f"trial.tokens={trial.tokens}: {rule}"
    if spec.parent is None:
        yield "trial: must be null without a parent, because a trial compares the losses of parent and child"
