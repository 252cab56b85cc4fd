"""Table of a comparison. Each row contains the cost of one size of one arm and the comparison of this size with the
chain."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tfscale.analysis.bootstrap import Source, curves_by_size, draw_together, perplexities
from tfscale.analysis.curves import ArmCurve, Cost, Measure, the_chain
from tfscale.analysis.equal_cost import (
    BestOfAnySize,
    EqualCompute,
    EqualPerplexity,
    at_equal_compute,
    at_equal_perplexity,
    best_of_any_size,
)
from tfscale.analysis.family import FamilyCost, family_cost
from tfscale.analysis.intervals import Interval, interval_of
from tfscale.analysis.noise import NoiseFloor
from tfscale.plan.arm_kind import arm_kind
from tfscale.stage.folder import lineage

Status = Literal["finished", "unfinished", "missing"]


@dataclass(frozen=True)
class Row:
    """Table row for one size of one arm over all seeds. Measurements are None until the run of at least one seed has
    finished, and costs are None until the runs of all seeds have finished. Comparisons are None until a run of the arm
    and a run of the chain have finished. For the comparison at equal perplexity, the chain's run may be unfinished."""

    size: str
    arm: str
    title: str
    kind: str
    keys: tuple[str, ...]
    """Keys of the stages of this row, one per seed."""
    chain_keys: tuple[str, ...]
    """Keys of the chain's stages of this size, with which the row is compared. Empty in the rows of the chain, and for
    sizes that the chain does not have."""
    rests_on: tuple[str, ...]
    """Keys of all stages on which numbers of the row depend, including parents and smaller sizes. The stages of the
    best model in `any_size` are not included."""
    seeds: tuple[int | None, ...]
    status: Status
    """State of the runs of this row. `finished`: the runs of all seeds have finished. `missing`: no run has been
    evaluated. `unfinished`: all other cases."""
    parameters: int | None
    loss: float | None
    """Final validation loss in nats per token, averaged over the seeds that have finished."""
    perplexity: float | None
    perplexity_interval: Interval | None
    perplexity_over: tuple[Source, ...]
    bits_per_byte: float | None
    cumulative: Cost | None
    marginal: Cost | None
    family: FamilyCost | None
    """Family cost of all sizes of the arm up to this size, each at the chain's final perplexity, in the table's
    measure. None if it is unknown or the chain does not have this size."""
    equal_compute: EqualCompute | None
    """Comparison of the arm with the chain at the chain's cumulative cost."""
    equal_perplexity: EqualPerplexity | None
    """Comparison of the arm with the chain at the arm's final perplexity."""
    cost_ratio: float | None
    """Ratio of the arm's cumulative cost to the chain's cumulative cost in the table's measure, regardless of
    perplexity."""
    with_optimizer: EqualPerplexity | None = None
    """`equal_perplexity` with the optimizer's FLOPs included. None if these FLOPs are unknown for the arm or the chain,
    or if the table's measure is not model FLOPs."""
    any_size: BestOfAnySize | None = None
    """Comparison of the chain with the best model from scratch of any size, or None if there is no such model. Always
    None in the rows of other arms."""

    @property
    def shared(self) -> bool:
        """True if the runs of this row are also runs of the chain."""
        return self.keys == self.chain_keys

    @property
    def noise(self) -> NoiseFloor | None:
        """Noise floor of the comparison, or None if it is unknown or not needed."""
        return self.equal_perplexity.noise if self.equal_perplexity else None

    @property
    def optimizer_share(self) -> float | None:
        """Optimizer's share of the FLOPs of the runs of this row, excluding their parents, or None if the share is
        unknown."""
        share = self.marginal.optimizer_share if self.marginal else math.nan
        return None if math.isnan(share) else share


@dataclass(frozen=True)
class Table:
    """Comparison of all sizes of all arms with the chain."""

    measure: Measure
    """Measure of compute in which arms are compared. The cumulative and marginal costs of the rows are given in all
    measures."""
    chain: str
    """Name of the arm with which all other arms are compared."""
    heldout_tokens: int | None
    rows: tuple[Row, ...]
    """Rows in the chain's order of sizes, followed by sizes that the chain does not have. Rows of one size are in the
    order of the arms."""
    tuning_flops: float | None = None
    """FLOPs spent on tuning learning rates, or None if not stated. These FLOPs are not included in any row."""
    primary: tuple[str, str] | None = None
    """Size and arm name of the primary comparison, or None if no comparison is declared as primary."""
    assumed_noise: float | None = None
    """Noise floor in nats for comparisons in which the chain and the arm have one seed each, or None if it is
    unknown."""

    @property
    def sizes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.size for row in self.rows))

    def of_size(self, size: str) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.size == size)

    def rank(self, row: Row) -> Literal["primary", "secondary"] | None:
        """Return `primary` if the comparison of a row with the chain is the primary comparison, otherwise `secondary`.
        Return None if the runs of the row are runs of the chain."""
        if row.arm == self.chain or row.shared:
            return None
        return "primary" if (row.size, row.arm) == self.primary else "secondary"


def compare(
    arms: Sequence[ArmCurve],
    measure: Measure = "flops",
    assumed_noise: float | None = None,
    tuning_flops: float | None = None,
    primary: tuple[str, str] | None = None,
) -> Table:
    """Compare all arms with the first arm of kind `chain`. All arguments except `arms` are fields of `Table`.

    Raises:
        ValueError: there is no chain among the arms.
    """
    chain = the_chain(arms)
    sizes = tuple(dict.fromkeys(size for arm in (chain, *arms) for size in arm.sizes))
    pairs = [(arm, size) for size in sizes for arm in arms if size in arm.sizes]
    curves = curves_by_size(arms, measure)
    with_optimizer = curves_by_size(arms, "flops_with_optimizer") if measure == "flops" else {}
    scratch = {(arm.name, size): curves[arm.name, size] for arm, size in pairs if arm_kind(arm.kind).from_scratch}
    known = [run for arm in arms for stage in arm.stages for run in (stage, *stage.readings)]
    parents = {stage.key: stage.parent for run in known for stage in run.stages}

    def row(arm: ArmCurve, size: str) -> Row:
        runs, others = arm.replicates(size), () if arm is chain else chain.replicates(size)
        mine, theirs = (arm.name, size), (chain.name, size)
        ends = [run.end for run in runs if run.end]
        loss = float(np.mean([end.loss for end in ends])) if ends else None
        of_arm, of_chain = curves[mine], curves[theirs] if others else None
        drawn = draw_together(of_arm) if of_arm and of_arm.finished else None
        over = drawn.over if drawn else ()
        cost, chain_cost = (Cost.mean([run.cumulative for run in each]) for each in (runs, others))
        included = at_equal_perplexity(with_optimizer.get(theirs), with_optimizer.get(mine), assumed_noise)
        up_to = chain.sizes[: chain.sizes.index(size) + 1] if size in chain.sizes else ()
        smaller = [stage for s in arm.sizes[: arm.sizes.index(size) + 1] for stage in arm.replicates(s)]
        own_keys = [each.key for stage in smaller for each in (stage, *stage.readings)]
        chain_keys = tuple(run.key for run in others)
        status: Status = "unfinished" if any(run.evaluations for run in runs) else "missing"
        if all(run.finished for run in runs):
            status = "finished"
        compared = _with_ancestors([*own_keys, *chain_keys], parents)
        of_family = [run.key for each in up_to for run in chain.replicates(each)]
        return Row(
            size=size,
            arm=arm.name,
            title=arm.title,
            kind=arm.kind,
            keys=tuple(run.key for run in runs),
            chain_keys=chain_keys,
            rests_on=_with_ancestors([*compared, *of_family], parents),
            seeds=tuple(run.seed for run in runs),
            status=status,
            parameters=runs[0].parameters,
            loss=loss,
            perplexity=None if loss is None else math.exp(loss),
            perplexity_interval=interval_of(perplexities(drawn.curves[0].losses[:, -1])) if drawn and over else None,
            perplexity_over=over,
            bits_per_byte=float(np.mean([end.bits_per_byte for end in ends])) if ends else None,
            cumulative=cost,
            marginal=Cost.mean([run.marginal for run in runs]),
            family=family_cost(arm, chain, up_to, measure) if up_to else None,
            equal_compute=at_equal_compute(of_chain, of_arm),
            equal_perplexity=at_equal_perplexity(of_chain, of_arm, assumed_noise),
            cost_ratio=cost.of(measure) / chain_cost.of(measure) if cost and chain_cost else None,
            with_optimizer=included if others else None,
            any_size=best_of_any_size(of_arm, scratch) if arm is chain else None,
        )

    heldout = {stage.heldout_tokens for arm in arms for stage in arm.stages}
    rows = tuple(row(arm, size) for arm, size in pairs)
    tokens = heldout.pop() if len(heldout) == 1 else None
    return Table(measure, chain.name, tokens, rows, tuning_flops, primary, assumed_noise)


def _with_ancestors(keys: Sequence[str], parents: dict[str, str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*keys, *(each for key in keys for each in reversed(lineage(key, parents.get)))]))
