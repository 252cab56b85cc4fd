"""Table of a comparison, whose rows contain the cost of each size of each arm and its comparison with the chain."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tfscale.analysis.any_size import BestOfAnySize, best_of_any_size
from tfscale.analysis.bootstrap import ReplicateCurves, Source, draw_together, perplexities, replicate_curves
from tfscale.analysis.curves import ArmCurve, Cost, Measure, StageCurve
from tfscale.analysis.equal_cost import EqualCompute, EqualPerplexity, at_equal_compute, at_equal_perplexity
from tfscale.analysis.family import FamilyCost, family_cost
from tfscale.analysis.intervals import Interval, interval_of
from tfscale.plan.arm_kind import arm_kind
from tfscale.stage.folder import lineage

Status = Literal["finished", "unfinished", "missing"]


@dataclass(frozen=True)
class Row:
    """Table row for one size of one arm over all seeds. Measurements are None until a run has finished, costs are None
    until all runs have finished, and comparisons are None until both sides have finished runs. At equal perplexity, the
    chain's run may be unfinished."""

    size: str
    arm: str
    title: str
    kind: str
    keys: tuple[str, ...]
    """Keys of the stages of this row, one per seed."""
    chain_keys: tuple[str, ...]
    """Keys of the chain's stages with which the row is compared. The tuple is empty for the chain itself, and if the
    chain does not have this size."""
    rests_on: tuple[str, ...]
    """Keys of all stages on which numbers of the row depend: stages of this row and of the chain, their parents, and
    smaller sizes of the arm."""
    seeds: tuple[int | None, ...]
    status: Status
    """Status of the runs of this row, which is `finished` if the runs of all seeds have finished."""
    parameters: int | None
    loss: float | None
    """Validation loss in nats per token, averaged over seeds."""
    perplexity: float | None
    """Perplexity per token: exp(loss)."""
    perplexity_interval: Interval | None
    """Confidence interval of the perplexity, or None if it is unknown."""
    perplexity_over: tuple[Source, ...]
    bits_per_byte: float | None
    cumulative: Cost | None
    marginal: Cost | None
    family: FamilyCost | None
    """Total cost, in the table's measure, of all sizes of the arm up to this one, each at the chain's final perplexity.
    None if the arm or the chain has not finished one of these sizes."""
    equal_compute: EqualCompute | None
    """Comparison of the arm with the chain at the chain's cumulative cost."""
    equal_perplexity: EqualPerplexity | None
    """Comparison of the arm with the chain at the arm's final perplexity."""
    cost_ratio: float | None
    """Ratio of the arm's cumulative cost to the chain's, regardless of their perplexities. The ratio is a speed-up only
    if the perplexities are equal."""
    with_optimizer: EqualPerplexity | None = None
    """Comparison of the arm with the chain at the arm's final perplexity, with the optimizer's FLOPs included. None if
    these FLOPs are unknown for the arm or the chain, or if the table's measure is not model FLOPs."""
    any_size: BestOfAnySize | None = None
    """Comparison of the chain with the best model from scratch of any size; None in the rows of other arms."""

    @property
    def shared(self) -> bool:
        """True if the runs of this row are also runs of the chain."""
        return self.keys == self.chain_keys

    @property
    def optimizer_share(self) -> float | None:
        """Optimizer's share of the FLOPs of the runs of this row, without their parents; None if it is unknown."""
        share = self.marginal.optimizer_share if self.marginal else math.nan
        return None if math.isnan(share) else share


@dataclass(frozen=True)
class Table:
    """Table of a comparison of arms, with rows by size and arm."""

    measure: Measure
    """Measure of compute for equal compute, speed-up and saving. Costs are reported in all measures."""
    chain: str
    """Name of the arm with which all other arms are compared."""
    heldout_tokens: int | None
    rows: tuple[Row, ...]
    """Rows in the chain's order of sizes and, for each size, in the order of the arms."""
    tuning_flops: float | None = None
    """Cost of tuning the learning rates of the arms, which is not included in any row, or None if it is not stated."""
    primary: tuple[str, str] | None = None
    """Size and name of the arm of the primary comparison, or None if none is declared."""
    assumed_noise: float | None = None
    """Noise floor in nats of comparisons in which both sides have one seed, or None if it is unknown."""

    @property
    def sizes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.size for row in self.rows))

    def of_size(self, size: str) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.size == size)

    def rank(self, row: Row) -> Literal["primary", "secondary"] | None:
        """Return whether the comparison of a row with the chain is primary or secondary, or None if there is no
        comparison."""
        if row.arm == self.chain or row.shared:
            return None
        return "primary" if (row.size, row.arm) == self.primary else "secondary"

    @property
    def unfinished(self) -> tuple[Row, ...]:
        """Rows whose runs are missing or not finished."""
        return tuple(row for row in self.rows if row.status != "finished")


def compare(
    arms: Sequence[ArmCurve],
    measure: Measure = "flops",
    assumed_noise: float | None = None,
    tuning_flops: float | None = None,
    primary: tuple[str, str] | None = None,
) -> Table:
    """Compare all arms with the first chain among them. If the measure is model FLOPs, also compare the arms with the
    optimizer's FLOPs included. All arguments except `arms` are fields of the returned table.

    Raises:
        ValueError: there is no chain among the arms.
    """
    chain = the_chain(arms)
    sizes = tuple(dict.fromkeys(size for arm in (chain, *arms) for size in arm.sizes))
    pairs = [(arm, size) for size in sizes for arm in arms if size in arm.sizes]
    curves_by_size = _curves_by_size(pairs, measure)
    with_optimizer = _curves_by_size(pairs, "flops_with_optimizer") if measure == "flops" else {}
    scratch = {
        (arm.name, size): curves_by_size[arm.name, size] for arm, size in pairs if arm_kind(arm.kind).from_scratch
    }
    runs = [run for arm in arms for stage in arm.stages for run in (stage, *stage.readings)]
    parents = {stage.key: stage.parent for run in runs for stage in run.stages}

    def row(arm: ArmCurve, size: str) -> Row:
        other = () if arm is chain else chain.replicates(size)
        mine, theirs = (arm.name, size), (chain.name, size)
        of_chain = curves_by_size[theirs] if other else None
        found = _row(arm, size, curves_by_size[mine], other, of_chain, assumed_noise, parents, measure)
        included = at_equal_perplexity(with_optimizer.get(theirs), with_optimizer.get(mine), assumed_noise)
        any_size = best_of_any_size(curves_by_size[mine], scratch) if arm is chain else None
        found = replace(found, with_optimizer=included if other else None, any_size=any_size)
        up_to = chain.sizes[: chain.sizes.index(size) + 1] if size in chain.sizes else ()
        together = family_cost(arm, chain, up_to, measure) if up_to else None
        of_family = [run.key for each in up_to for run in chain.replicates(each)]
        return replace(found, family=together, rests_on=_with_ancestors([*found.rests_on, *of_family], parents))

    heldout = {stage.heldout_tokens for arm in arms for stage in arm.stages}
    rows = tuple(row(arm, size) for arm, size in pairs)
    tokens = heldout.pop() if len(heldout) == 1 else None
    return Table(measure, chain.name, tokens, rows, tuning_flops, primary, assumed_noise)


def _curves_by_size(
    runs: Sequence[tuple[ArmCurve, str]], measure: Measure
) -> dict[tuple[str, str], ReplicateCurves | None]:
    return {(arm.name, size): replicate_curves(arm.replicates(size), measure) for arm, size in runs}


def the_chain(arms: Sequence[ArmCurve]) -> ArmCurve:
    """Return the first chain among the arms.

    Raises:
        ValueError: there is no chain among the arms.
    """
    for arm in arms:
        if arm.kind == "chain":
            return arm
    raise ValueError(
        f"a comparison needs a chain; the arms are: {', '.join(f'{arm.name} ({arm.kind})' for arm in arms) or 'none'}"
    )


def _row(
    arm: ArmCurve,
    size: str,
    mine: ReplicateCurves | None,
    chain: Sequence[StageCurve],
    theirs: ReplicateCurves | None,
    assumed_noise: float | None,
    parents: dict[str, str | None],
    measure: Measure,
) -> Row:
    runs = arm.replicates(size)
    ends = [run.end for run in runs if run.end]
    loss = float(np.mean([end.loss for end in ends])) if ends else None
    own_family = [stage for s in arm.sizes[: arm.sizes.index(size) + 1] for stage in arm.replicates(s)]
    own_keys = [each.key for stage in own_family for each in (stage, *stage.readings)]
    drawn = draw_together(mine) if mine and mine.finished else None
    cost, chain_cost = (Cost.mean([run.cumulative for run in each]) for each in (runs, chain))
    return Row(
        size=size,
        arm=arm.name,
        title=arm.title,
        kind=arm.kind,
        keys=tuple(run.key for run in runs),
        chain_keys=tuple(run.key for run in chain),
        rests_on=_with_ancestors([*own_keys, *(run.key for run in chain)], parents),
        seeds=tuple(run.seed for run in runs),
        status=_status(runs),
        parameters=runs[0].parameters,
        loss=loss,
        perplexity=None if loss is None else math.exp(loss),
        perplexity_interval=interval_of(perplexities(drawn.curves[0].losses[:, -1])) if drawn and drawn.over else None,
        perplexity_over=drawn.over if drawn else (),
        bits_per_byte=float(np.mean([end.bits_per_byte for end in ends])) if ends else None,
        cumulative=cost,
        marginal=Cost.mean([run.marginal for run in runs]),
        family=None,
        equal_compute=at_equal_compute(theirs, mine),
        equal_perplexity=at_equal_perplexity(theirs, mine, assumed_noise),
        cost_ratio=cost.of(measure) / chain_cost.of(measure) if cost and chain_cost else None,
    )


def _status(runs: Sequence[StageCurve]) -> Status:
    if all(run.finished for run in runs):
        return "finished"
    return "unfinished" if any(run.evaluations for run in runs) else "missing"


def _with_ancestors(keys: Sequence[str], parents: dict[str, str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*keys, *(each for key in keys for each in reversed(lineage(key, parents.get)))]))
