"""Reader of perplexity over compute from the folders of stages.

This is the only module of the package that reads measurements.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from tfscale.models.counts import flops, parameters
from tfscale.plan.arms import Arm
from tfscale.stage.events import Event, read_events, totals_of
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.heldout import BlockLosses, read_blocks
from tfscale.stage.result import DONE_FILE, is_finished, read_result
from tfscale.totals import Totals

Measure = Literal["flops", "flops_with_optimizer", "tokens", "device_seconds"]
"""Unit in which compute is measured."""


@dataclass(frozen=True)
class Cost:
    """Cost of training, which may be a mean. Unknown values, as there may be for published runs, are NaN."""

    tokens: float
    flops: float
    """Number of model FLOPs."""
    flops_with_optimizer: float
    """Number of model FLOPs and FLOPs of the optimizer's updates; NaN if any updates were not counted."""
    seconds: float
    """Time spent in training steps, without evaluation and checkpoints."""
    device_seconds: float
    """`seconds` times the number of devices."""

    @staticmethod
    def of_totals(totals: Totals) -> "Cost":
        """Return the cost that a stage recorded."""
        of_updates = math.nan if totals.spent_on_updates is None else totals.spent_on_updates
        return Cost(totals.tokens, totals.flops, totals.flops + of_updates, totals.seconds, totals.device_seconds)

    @property
    def optimizer_share(self) -> float:
        """Share of the optimizer in all FLOPs; NaN if it is unknown, or if there are no FLOPs."""
        return 1 - self.flops / self.flops_with_optimizer if self.flops_with_optimizer else math.nan

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)))

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(Cost)))

    def of(self, measure: Measure) -> float:
        value: float = getattr(self, measure)
        return value


NOTHING = Cost(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Evaluation:
    """Evaluation on the validation text."""

    step: int
    """Step within the stage; 0 for the evaluation before its first step, which after a growth is that of the untrained
    grown model."""
    tokens: float
    """Number of tokens since the beginning of the stage."""
    totals: Cost
    """Cumulative cost of the lineage, including the base."""
    loss: float
    """Validation loss in nats per token."""
    perplexity: float
    bits_per_byte: float
    read_from: Mapping[str, str] | None = None
    """Source of each published number: `table`, `text`, `figure` or `derived`; None if it was measured here."""


@dataclass(frozen=True)
class StageCurve:
    """Measurements of one stage: one size of one arm, with one seed."""

    size: str
    key: str
    parent: str | None
    """Key of the stage that this one started from."""
    grown: bool
    """True if the first evaluation is that of the grown model before any training."""
    parameters: int | None
    """Number of parameters; None if unknown."""
    heldout_tokens: int | None
    """Number of validation tokens; None if unknown."""
    start: Cost | None
    """Cost at which the parent ended; zero for a run from scratch, None if the stage has not begun."""
    evaluations: tuple[Evaluation, ...]
    """Evaluations in the order of their steps."""
    finished: bool
    seed: int | None = None
    """Random seed; None if unknown."""
    flops_per_token: float | None = None
    """Training FLOPs per token; None if unknown."""
    recipe: str | None = None
    """Name of the growth recipe, `none` for continued training of the same model; None if the stage is from scratch or
    the recipe is unknown."""
    folder: str | None = None
    """Name of the stage's folder; None if it has none here."""
    blocks: BlockLosses | None = None
    """Final evaluation by blocks of the validation text; None if not measured."""

    @property
    def end(self) -> Evaluation | None:
        """Evaluation at the end of the stage."""
        return self.evaluations[-1] if self.finished else None

    @property
    def step_size(self) -> Cost | None:
        """Average cost of an optimizer step; None before the stage has finished, or if no steps are known."""
        if self.end is None or self.start is None or not self.end.step:
            return None
        spent = self.end.totals - self.start
        return Cost(*(getattr(spent, f.name) / self.end.step for f in fields(Cost)))


@dataclass(frozen=True)
class ArmCurve:
    """Arm with the measurements of its stages; the fields are those of `tfscale.plan.arms.Arm`.

    Stages of one size are replicates, which differ only in their seed.
    """

    name: str
    title: str
    kind: str
    stages: tuple[StageCurve, ...]

    @property
    def sizes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stage.size for stage in self.stages))

    @property
    def seeds(self) -> tuple[int | None, ...]:
        return tuple(dict.fromkeys(stage.seed for stage in self.stages))

    def replicates(self, size: str) -> tuple[StageCurve, ...]:
        """Return the arm's runs of one size, one per seed; empty if it has no such size."""
        return tuple(stage for stage in self.stages if stage.size == size)

    def of_seed(self, seed: int | None) -> tuple[StageCurve, ...]:
        """Return the arm's stages of one seed, in order."""
        return tuple(stage for stage in self.stages if stage.seed == seed)


def read_arms(arms: Iterable[Arm]) -> tuple[ArmCurve, ...]:
    """Return the arms' measurements so far; stages that have not begun have no evaluations.

    Raises:
        ValueError: a `done.json` or `heldout.json` cannot be read, a parent has no `done.json`, or the arms were not
            evaluated on the same text.
    """
    arms = tuple(arms)
    _check_same_text(arms)
    for arm in arms:
        runs = [(stage.size, stage.spec.seed) for stage in arm.stages]
        assert len(set(runs)) == len(runs), f"arm {arm.name} has a size twice with one seed"
    return tuple(ArmCurve(arm.name, arm.title, arm.kind, tuple(map(read_stage, arm.stages))) for arm in arms)


def read_stage(stage: Stage) -> StageCurve:
    """Return the stage's measurements so far.

    Raises:
        ValueError: the stage's `done.json` or `heldout.json` cannot be read, or it began from a parent whose
            `done.json` is missing.
    """
    evaluations = {e["step"]: _evaluation(e) for e in read_events(stage.path) if e["event"] == "eval"}
    result = read_result(stage.path) if is_done(stage) else None
    if result is not None:
        last, tokens = result.evaluation, result.step * stage.spec.batch_tokens
        evaluations[result.step] = Evaluation(
            result.step, tokens, Cost.of_totals(result.totals), last.loss, last.perplexity, last.bits_per_byte
        )
    return StageCurve(
        size=stage.size,
        key=stage.key,
        parent=stage.spec.parent,
        grown=stage.spec.growth is not None and 0 in evaluations,
        parameters=parameters(stage.spec.model),
        heldout_tokens=stage.spec.data.heldout_tokens,
        start=_start(stage) if evaluations else None,
        evaluations=tuple(evaluations[step] for step in sorted(evaluations)),
        finished=result is not None,
        seed=stage.spec.seed,
        flops_per_token=flops(stage.spec.model).training,
        recipe=stage.spec.growth["name"] if stage.spec.growth else None,
        folder=stage.path.name,
        blocks=read_blocks(stage.path, result.step, result.evaluation.loss) if result is not None else None,
    )


def curve(stages: Sequence[StageCurve], measure: Measure) -> list[tuple[float, float]]:
    """Return (compute, perplexity) of the stages' evaluations, one stage after the other.

    Compute is cumulative, in the measure's unit. Points that logarithmic axes cannot show, such as an evaluation before
    any training, are left out.
    """
    points = [(e.totals.of(measure), e.perplexity) for stage in stages for e in stage.evaluations]
    return [(compute, perplexity) for compute, perplexity in points if compute > 0 and math.isfinite(perplexity)]


def _evaluation(event: Event) -> Evaluation:
    measures = (event[name] for name in ("loss", "perplexity", "bits_per_byte"))
    return Evaluation(event["step"], event["tokens"], Cost.of_totals(totals_of(event)), *measures)


def _start(stage: Stage) -> Cost:
    if stage.spec.parent is None:
        return NOTHING
    assert stage.spec.parent_dir is not None, "a stage with a parent says where it is"
    parent = stage.path / stage.spec.parent_dir
    if not is_finished(parent):
        raise ValueError(
            f"{parent / DONE_FILE} is missing, so the cost of {stage.path.name} cannot be separated from "
            "that of its parent. Restore the folder, or train it again with `tfscale run`."
        )
    return Cost.of_totals(read_result(parent).totals)


def _check_same_text(arms: Sequence[Arm]) -> None:
    first: tuple[str, str, int, int] | None = None
    for arm in arms:
        for stage in arm.stages:
            data = stage.spec.data
            if first is None:
                first = (f"{arm.name} {stage.size}", data.fingerprint, data.heldout_tokens, data.heldout_start)
            elif (data.fingerprint, data.heldout_tokens, data.heldout_start) != first[1:]:
                raise ValueError(
                    f"{arm.name} {stage.size} is evaluated on {data.heldout_tokens} validation tokens of corpus "
                    f"{data.fingerprint} from {data.heldout_start} on, {first[0]} on {first[2]} of {first[1]} from "
                    f"{first[3]} on: their perplexities are not comparable. Give all arms the same data, "
                    "data.validation_tokens and data.validation_start."
                )
