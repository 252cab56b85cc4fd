"""Curves of perplexity over compute, read from stage folders.

No other module of `tfscale.analysis` reads measurements.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from tfscale.models.counts import flops, parameters
from tfscale.plan.arms import Arm
from tfscale.stage.events import Event, read_events, totals_of
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.heldout import BlockLosses, read_blocks
from tfscale.stage.result import DONE_FILE, has_result, read_result
from tfscale.totals import Totals

Measure = Literal["flops", "flops_with_optimizer", "tokens", "device_seconds"]
"""Unit in which compute is measured: model FLOPs, model FLOPs plus the FLOPs of optimizer updates, training tokens, or
device-seconds."""


@dataclass(frozen=True)
class Cost:
    """Cost of training a model, or the mean cost of several runs, in the units of `tfscale.totals.Totals`. Unknown
    values, such as the seconds of published runs, are NaN."""

    tokens: float
    flops: float
    """Model FLOPs."""
    flops_with_optimizer: float
    """Model FLOPs plus FLOPs of optimizer updates; NaN if the FLOPs of any update were not recorded."""
    seconds: float
    device_seconds: float

    @staticmethod
    def of_totals(totals: Totals) -> "Cost":
        """Return the cost that corresponds to the totals of a stage."""
        of_updates = math.nan if totals.spent_on_updates is None else totals.spent_on_updates
        return Cost(totals.tokens, totals.flops, totals.flops + of_updates, totals.seconds, totals.device_seconds)

    @property
    def optimizer_share(self) -> float:
        """Fraction of `flops_with_optimizer` that optimizer updates take; NaN if it is unknown or if there are no
        FLOPs."""
        return 1 - self.flops / self.flops_with_optimizer if self.flops_with_optimizer else math.nan

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(Cost)))

    def of(self, measure: Measure) -> float:
        value: float = getattr(self, measure)
        return value

    @staticmethod
    def mean(costs: Sequence["Cost | None"]) -> "Cost | None":
        """Return the mean of the costs of several seeds, or None if `costs` is empty or any cost is None."""
        known = [cost for cost in costs if cost is not None]
        if not costs or len(known) < len(costs):
            return None
        if len(known) == 1:
            return known[0]  # keeps integers
        return Cost(*(sum(getattr(cost, f.name) for cost in known) / len(known) for f in fields(Cost)))


NO_COST = Cost(0, 0, 0, 0, 0)
COSTS = ("cumulative", "marginal")
"""Names of the costs of a single model. Family costs are not in this list, because they also depend on the perplexities
at which the sizes of an arm are compared."""


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a model on the validation text."""

    step: int
    """Number of optimizer steps since the start of the run. The evaluation at step 0 takes place before training and,
    if the run starts with a growth, after the growth."""
    tokens: float
    """Training tokens since the start of the run."""
    totals: Cost
    """Cumulative cost of the model and all its ancestors, including the base."""
    loss: float
    """Validation loss in nats per token."""
    perplexity: float
    bits_per_byte: float
    read_from: Mapping[str, str] | None = None
    """Mapping from the name of each number of a published point to the source of the number, which is `table`, `text`,
    `figure` or `derived`. None if the evaluation was measured with tfscale."""


@dataclass(frozen=True)
class StageCurve:
    """Measurements of one training run, for one size of an arm and one seed. The run is a stage, or a branch together
    with the stages of its trunk at the same size. None stands for an unknown value unless a field says otherwise."""

    size: str
    key: str
    parent: str | None
    """Key of the stage from which this run started, or None if the run did not start from a stage."""
    grown: bool
    """True if the run starts with a growth recipe, which may be `none`, and was evaluated before any training."""
    parameters: int | None
    heldout_tokens: int | None
    """Number of validation tokens."""
    start: Cost | None
    """Final cumulative cost of the parent. It is zero for a run from scratch, and None before the first evaluation of
    the run."""
    evaluations: tuple[Evaluation, ...]
    """Evaluations in the order of their steps."""
    finished: bool
    seed: int | None = None
    flops_per_token: float | None = None
    """Training FLOPs per token."""
    recipe: str | None = None
    """Name of the growth recipe (`none` for continued training), or None if the run starts from scratch."""
    blocks: BlockLosses | None = None
    """Losses of the final evaluation for each block of the validation text."""
    parts: tuple["StageCurve", ...] = ()
    """Stages of the run, oldest first, if the run belongs to an arm with a trunk or follows rejected growths to this
    size; otherwise empty. Stages whose growth was rejected, and stages that then trained the parent further, come
    first. Their costs are included in `marginal`, but their evaluations are not included in `evaluations`."""
    readings: tuple["StageCurve", ...] = ()
    """Runs that train this model at different budgets, including this run, in order of compute. Empty if there is only
    one budget or if any of these runs has not finished."""

    @property
    def stages(self) -> tuple["StageCurve", ...]:
        """All stages of the run, oldest first: `parts`, or only this object if `parts` is empty."""
        return self.parts or (self,)

    @property
    def end(self) -> Evaluation | None:
        """Final evaluation of the run, or None if the run has not finished."""
        return self.evaluations[-1] if self.finished else None

    @property
    def cumulative(self) -> Cost | None:
        """Cost of the model and all its ancestors, including the base, or None if the run has not finished."""
        return self.end.totals if self.end else None

    @property
    def marginal(self) -> Cost | None:
        """Cost of this run, excluding its parent but including rejected growths to this size, or None if the run has
        not finished."""
        start = self.stages[0].start
        return self.end.totals - start if self.end and start else None

    @property
    def step_size(self) -> Cost | None:
        """Average cost of an optimizer step of this run, excluding rejected growths, or None if the run has not
        finished or its number of steps is unknown."""
        if self.end is None or self.start is None or not self.end.step:
            return None
        own = self.end.totals - self.start
        return Cost(*(getattr(own, f.name) / self.end.step for f in fields(Cost)))


@dataclass(frozen=True)
class ArmCurve:
    """Arm with the measurements of its stages. The fields have the same meaning as in `tfscale.plan.arms.Arm`.

    Elements of `stages` with the same size are replicates, which differ only in their seed. In an arm with a trunk, an
    element can be a run of several stages.
    """

    name: str
    title: str
    kind: str
    stages: tuple[StageCurve, ...]
    trunk: tuple[StageCurve, ...] = ()
    detours: tuple[StageCurve, ...] = ()

    @property
    def sizes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stage.size for stage in self.stages))

    def replicates(self, size: str) -> tuple[StageCurve, ...]:
        """Return the runs of one size, one per seed."""
        return tuple(stage for stage in self.stages if stage.size == size)


def the_chain(arms: Sequence[ArmCurve]) -> ArmCurve:
    """Return the first arm of kind `chain`.

    Raises:
        ValueError: there is no chain among the arms.
    """
    for arm in arms:
        if arm.kind == "chain":
            return arm
    raise ValueError(
        f"a comparison needs a chain; the arms are: {', '.join(f'{arm.name} ({arm.kind})' for arm in arms) or 'none'}"
    )


def read_arms(arms: Iterable[Arm]) -> tuple[ArmCurve, ...]:
    """Read the current measurements of all stages of the arms.

    Raises:
        ValueError: a `done.json` or `heldout.json` cannot be read, a parent has no `done.json`, or the arms were not
            evaluated on the same text.
    """
    arms = tuple(arms)
    _check_same_text(arms)
    for arm in arms:
        runs = [(stage.size, stage.spec.seed) for stage in arm.stages]
        assert len(set(runs)) == len(runs), f"arm {arm.name} has two stages of the same size and seed"
    return tuple(map(_read_arm, arms))


def _read_arm(arm: Arm) -> ArmCurve:
    curves = {stage.key: read_stage(stage) for stage in arm.all_stages}

    def run(stage: Stage) -> StageCurve:
        parts = [curves[part.key] for part in arm.run_of(stage)]
        own = joined(parts) if arm.trunk else curves[stage.key]
        detour = [curves[part.key] for part in arm.detour_of(stage)]
        return replace(own, parts=(*detour, *own.stages)) if detour else own

    def with_readings(stage: Stage) -> StageCurve:
        others = [run(each) for each in arm.readings if (each.size, each.spec.seed) == (stage.size, stage.spec.seed)]
        own = run(stage)
        ended = [(each.end.totals.flops, each) for each in (own, *others) if each.end is not None]
        readings = tuple(each for _, each in sorted(ended, key=lambda pair: pair[0]))
        return replace(own, readings=readings if others and len(ended) > len(others) else ())

    trunk, detours = (tuple(curves[stage.key] for stage in group) for group in (arm.trunk, arm.detours))
    return ArmCurve(arm.name, arm.title, arm.kind, tuple(map(with_readings, arm.stages)), trunk, detours)


def joined(parts: Sequence[StageCurve]) -> StageCurve:
    """Combine the measurements of stages that train the same model one after another into the measurements of one
    run."""
    first, last = parts[0], parts[-1]
    evaluations: list[Evaluation] = []
    for part in parts:
        step, tokens = (evaluations[-1].step, evaluations[-1].tokens) if evaluations else (0, 0.0)
        evaluations += [
            replace(each, step=step + each.step, tokens=tokens + each.tokens)
            for each in part.evaluations
            if each.step or not evaluations  # step 0 of a stage repeats the end of the previous stage
        ]
    inherited = {name: getattr(first, name) for name in ("parent", "grown", "start", "recipe")}
    return replace(last, evaluations=tuple(evaluations), parts=tuple(parts), **inherited)


def read_stage(stage: Stage) -> StageCurve:
    """Read the current measurements of a stage from its folder.

    Raises:
        ValueError: the stage's `done.json` or `heldout.json` cannot be read, or the `done.json` of its parent is
            missing.
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
        blocks=read_blocks(stage.path, result.step, result.evaluation.loss) if result is not None else None,
    )


def curve(stages: Sequence[StageCurve], measure: Measure) -> list[tuple[float, float]]:
    """Return a pair (cumulative compute, perplexity) for each evaluation of the stages. Points that logarithmic axes
    cannot show, such as an evaluation before any training, are omitted."""
    points = [(e.totals.of(measure), e.perplexity) for stage in stages for e in stage.evaluations]
    return [(compute, perplexity) for compute, perplexity in points if compute > 0 and math.isfinite(perplexity)]


def _evaluation(event: Event) -> Evaluation:
    measures = (event[name] for name in ("loss", "perplexity", "bits_per_byte"))
    return Evaluation(event["step"], event["tokens"], Cost.of_totals(totals_of(event)), *measures)


def _start(stage: Stage) -> Cost:
    if stage.spec.parent is None:
        return NO_COST
    assert stage.spec.parent_dir is not None, "a stage with a parent must have a parent_dir"
    parent = stage.path / stage.spec.parent_dir
    if not has_result(parent):
        raise ValueError(
            f"{parent / DONE_FILE} is missing, so the cost of {stage.path.name} cannot be separated from "
            "that of its parent. Restore the folder, or train the stage again with `tfscale run`."
        )
    return Cost.of_totals(read_result(parent).totals)


def _check_same_text(arms: Sequence[Arm]) -> None:
    texts: dict[tuple[str, int, int], str] = {}
    for arm in arms:
        for stage in arm.all_stages:
            data = stage.spec.data
            texts.setdefault((data.fingerprint, data.heldout_tokens, data.heldout_start), f"{arm.name} {stage.size}")
    if len(texts) > 1:
        (corpus, tokens, start), (other_corpus, other_tokens, other_start) = list(texts)[:2]
        first, other = list(texts.values())[:2]
        raise ValueError(
            f"{other} is evaluated on {other_tokens} validation tokens of corpus {other_corpus} starting at "
            f"{other_start}, but {first} on {tokens} tokens of {corpus} starting at {start}. These perplexities are "
            "not comparable. Use the same data, data.validation_tokens and data.validation_start for all arms."
        )
