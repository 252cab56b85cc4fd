"""Comparison of family costs at equal perplexity per size. The family cost of an arm is the total cost of its models of
all sizes.

Family costs matter if a model of every size is needed (arXiv 2504.00623 reports that growth saves about 25% of this
cost). A stage or trunk from which several sizes grow or branch is counted once.

Arms rarely end at the same perplexities, so there are two comparisons: one at the chain's final perplexity of each
size, and one at the other arm's final perplexities. The arm that sets the perplexities has the cost of its finished
runs. The cost at which the other arm reached the same perplexities is read from its curves, separately at each size.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tfscale.analysis.bootstrap import Curves, ReplicateCurves, Source, draw_together, replicate_curves
from tfscale.analysis.curves import ArmCurve, Measure, StageCurve
from tfscale.analysis.intervals import Array, Interval, interval_of
from tfscale.analysis.noise import noise_floor
from tfscale.stage.folder import lineage

Bound = Literal["exact", "at least", "at most"]
Verdict = Literal["saves", "no difference", "costs more", "open"]
FAMILY_MEASURES: tuple[Measure, ...] = ("flops", "flops_with_optimizer", "device_seconds")


@dataclass(frozen=True)
class SizeCost:
    """Cost at which an arm reached a perplexity at one size."""

    size: str
    cumulative: float
    """Cumulative cost, in the unit of the chosen cost measure, at which the perplexity was reached, or the cost of the
    whole run if the perplexity was not reached."""
    bound: Bound
    """Relation between `cumulative` and the cost of a run that is planned to end at this perplexity. `exact`: the run
    costs the same. `at most`: the run costs at most as much, because the perplexity was reached during training, before
    the decay of the learning rate. `at least`: the run costs at least as much, because the perplexity was not
    reached."""


@dataclass(frozen=True)
class FamilyCost:
    """Total cost of an arm's models of all sizes, which lies between two bounds."""

    low: float
    """Lower bound of the cost. It excludes the sizes for which only an upper bound is known."""
    high: float
    """Upper bound of the cost. It is infinite if the perplexity of any size was not reached."""
    readings: tuple[SizeCost, ...]

    @property
    def bound(self) -> Bound:
        """Relation between the true cost and `shown`. `exact`: both are equal. `at most`: the true cost is at most as
        high. `at least`: the true cost is at least as high."""
        if self.sizes("at least"):
            return "at least"
        return "at most" if self.sizes("at most") else "exact"

    @property
    def shown(self) -> float:
        """Cost to display: the upper bound or, if the upper bound is infinite, the lower bound."""
        return self.low if self.sizes("at least") else self.high

    def sizes(self, bound: Bound) -> tuple[str, ...]:
        return tuple(reading.size for reading in self.readings if reading.bound == bound)


@dataclass(frozen=True)
class EqualFamily:
    """Costs of the chain's family and of another arm's family at the same perplexities."""

    chain: FamilyCost
    arm: FamilyCost
    excess: Interval
    """Lower and upper bounds of the chain's excess cost, as a fraction of the arm's cost. A negative excess is a
    saving. The bounds are equal if both costs are exact. An unknown lower bound is -1, and an unknown upper bound is
    infinite."""
    interval: Interval | None
    """Confidence interval that covers both bounds of `excess`, or None if it is unknown."""
    verdict: Verdict
    """Verdict on the chain. `open`: a perplexity was not reached or was reached only during training, and the bounds of
    the excess do not show whether the chain is cheaper than the arm."""

    @property
    def exact(self) -> bool:
        return self.chain.bound == self.arm.bound == "exact"


@dataclass(frozen=True)
class FamilyComparison:
    """Comparison of the family costs of the chain and another arm in one measure of cost."""

    arm: str
    title: str
    measure: Measure
    at_chain: EqualFamily
    """Comparison at the chain's final perplexities."""
    at_arm: EqualFamily
    """Comparison at the arm's final perplexities."""
    over: tuple[Source, ...]
    """Sources of variation that the confidence intervals cover."""


def family_cost(arm: ArmCurve, chain: ArmCurve, sizes: Sequence[str], measure: Measure) -> FamilyCost | None:
    """Return the total cost of the given sizes of an arm, each at the chain's final perplexity of that size, or None if
    the arm or the chain has not finished a size or a cost is unknown."""
    reader, setter = _family(arm, sizes, measure), _family(chain, sizes, measure)
    return None if reader is None or setter is None else _CostReader(reader, setter).cost


def compare_families(
    chain: ArmCurve, arm: ArmCurve, measure: Measure, assumed: float | None
) -> FamilyComparison | None:
    """Compare the cost of all sizes of the chain with the cost of the same sizes of an arm. Return None if the chain or
    the arm has not finished a size, or if a cost is unknown. `assumed` has the same meaning as in `noise_floor`."""
    ours, theirs = _family(chain, chain.sizes, measure), _family(arm, chain.sizes, measure)
    if ours is None or theirs is None:
        return None
    members = (*ours.members, *theirs.members)
    drawn = draw_together(*(each for member in members for each in (member.run, member.read)))
    curves = list(zip(drawn.curves[::2], drawn.curves[1::2], strict=True))
    draws = (curves[: len(ours.members)], curves[len(ours.members) :]) if drawn.over else None
    floors = [noise_floor(our.run, their.run, assumed) for our, their in zip(ours.members, theirs.members, strict=True)]
    nats = 0.0 if "seeds" in drawn.over else max((floor.nats for floor in floors if floor), default=0.0)
    at_chain = _equal(_CostReader(theirs, ours), draws and draws[::-1], nats, of_chain=False)
    at_arm = _equal(_CostReader(ours, theirs), draws, nats, of_chain=True)
    return FamilyComparison(arm.name, arm.title, measure, at_chain, at_arm, drawn.over)


Stack = Sequence[tuple[Curves, Curves]]
"""One pair of curves per size of a family. The first element contains the curves of the runs, and the second element
contains the curves from which costs are read."""


@dataclass(frozen=True, eq=False)
class _Member:
    """Curves and costs of one size of an arm."""

    size: str
    run: ReplicateCurves
    read: ReplicateCurves
    """Curves from which costs are read: `run.decayed` or, if `run.decayed` is None, `run`."""
    own_from: float
    """Cumulative cost at the start of the first stage that only this size needs, averaged over seeds."""


@dataclass(frozen=True, eq=False)
class _Family:
    """Sizes of an arm, and the cost of the stages that these sizes share."""

    arm: ArmCurve
    measure: Measure
    members: tuple[_Member, ...]
    common: float
    """Cost of the stages that several sizes need, and of the models from which the arm started, each counted once."""

    @property
    def means(self) -> Stack:
        """Curves of each size, averaged over seeds."""
        return [(each.run.mean, each.read.mean) for each in self.members]

    def costs(self, at: Sequence[Array]) -> Array:
        """Return the total cost of all sizes [curves]. `at` contains one array per size: the logarithm of the
        cumulative cost [curves], which is infinite if the perplexity was not reached. With two seeds, bootstrap samples
        have heavy tails, so finite logarithms are limited to the range from -300 to 300, which keeps the ratios of
        costs defined."""
        spent = [np.where(np.isposinf(x), np.inf, np.exp(np.clip(x, -300.0, 300.0))) for x in at]
        own = [np.maximum(cost - each.own_from, 0.0) for cost, each in zip(spent, self.members, strict=True)]
        return np.asarray(self.common + np.sum(own, axis=0))


class _CostReader:
    """Reader of the costs at which the sizes of `family` reached the final perplexities of the same sizes of `setter`.
    `family` and `setter` may be the same family."""

    def __init__(self, family: _Family, setter: _Family) -> None:
        self.family, self.setter = family, setter
        readings = []
        found = self._reach(family.means, setter.means)
        for member, other, ((at,), (reached,)) in zip(family.members, setter.members, found, strict=True):
            points = member.read.mean.log_compute[0]
            decayed = member.run.keys == other.run.keys or at >= points[-member.read.ends] > points[0]
            bound: Bound = "at least" if not reached else "exact" if decayed else "at most"
            readings.append(SizeCost(member.size, float(np.exp(at)), bound))
        self.readings = tuple(readings)
        kept = [reading.size for reading in readings if reading.bound != "at most"]
        self.rest = _family(family.arm, kept, family.measure) if kept else None

    @property
    def cost(self) -> FamilyCost:
        """Cost of `family`, read from the curves averaged over seeds."""
        (low,), (high,) = self.bounds(self.family.means, self.setter.means)
        return FamilyCost(float(low), float(high), self.readings)

    def bounds(self, reads: Stack, sets: Stack) -> tuple[Array, Array]:
        """Return a lower and an upper bound [curves] of the total cost of all sizes. `reads` are curves of `family`,
        and `sets` are curves of `setter`, which sets the perplexities. The lower bound excludes the sizes at which
        `family` reached the perplexity during training."""
        found = self._reach(reads, sets)
        high = self.family.costs([np.where(reached, at, np.inf) for at, reached in found])
        kept = [at for reading, (at, _) in zip(self.readings, found, strict=True) if reading.bound != "at most"]
        return self.rest.costs(kept) if self.rest else np.zeros_like(high), high

    def _reach(self, reads: Stack, sets: Stack) -> list[tuple[Array, NDArray[np.bool_]]]:
        """Return two arrays [curves] for each size. The first is the logarithm of the cumulative cost at which `family`
        reached the final perplexity of `setter` or, if `family` did not reach this perplexity, of its final cumulative
        cost. The second is a mask that is True if `family` reached this perplexity."""
        found = []
        members = zip(self.family.members, self.setter.members, reads, sets, strict=True)
        for member, other, (run, read), (target, _) in members:
            at, _ = read.first_reach(target.losses[:, -1])
            if member.run.keys == other.run.keys:  # the same runs reach their own perplexity at their end
                at = run.log_compute[:, -1]
            found.append((np.where(np.isinf(at), read.log_compute[:, -1], at), np.isfinite(at)))
        return found


def _equal(reader: _CostReader, draws: tuple[Stack, Stack] | None, nats: float, of_chain: bool) -> EqualFamily:
    """Compare the family costs of `reader.family` and `reader.setter` at the final perplexities of the setter.

    Args:
        draws: bootstrap samples of the curves of the family and of the setter, or None if no source of variation is
            known.
        nats: noise floor of the losses in nats.
        of_chain: True if `reader.family` is the chain, False if the setter is the chain.
    """
    family, setter = reader.family, reader.setter

    def excess(reads: Stack, sets: Stack) -> Interval:
        least, most = reader.bounds(reads, sets)
        trained = setter.costs([run.log_compute[:, -1] for run, _ in sets])
        with np.errstate(divide="ignore"):
            low, high = (least / trained, most / trained) if of_chain else (trained / most, trained / least)
        return Interval(interval_of(low - 1).low, interval_of(high - 1).high)

    measured = excess(family.means, setter.means)
    intervals = [excess(*draws)] if draws else []
    for shift in (-nats, nats) if nats else ():
        intervals.append(excess(family.means, [(run.shifted(shift), read) for run, read in setter.means]))
    costs = (reader.cost, _CostReader(setter, setter).cost)
    verdict = decide_family(measured, intervals or [measured])
    return EqualFamily(*(costs if of_chain else costs[::-1]), measured, intervals[0] if draws else None, verdict)


def decide_family(excess: Interval, intervals: Sequence[Interval]) -> Verdict:
    """Return the verdict on the chain's family cost: `costs more` if all intervals are above 0, and `saves` if all are
    below 0. Otherwise, return `no difference` if the excess is exact, and `open` if only bounds of it are known.

    Args:
        excess: measured bounds of the chain's excess cost, as a fraction of the arm's cost.
        intervals: intervals of the excess cost that include noise, or the measured bounds if the noise is unknown.
    """
    if all(interval.low > 0 for interval in intervals):
        return "costs more"
    if all(interval.high < 0 for interval in intervals):
        return "saves"
    return "no difference" if excess.low == excess.high else "open"


def _family(arm: ArmCurve, sizes: Sequence[str], measure: Measure) -> _Family | None:
    """Return the family of the given sizes of an arm, with costs averaged over seeds, or None if a size has not
    finished or a cost is unknown."""
    replicates = [arm.replicates(size) for size in sizes]
    if not all(runs and all(run.finished for run in runs) for runs in replicates):
        return None
    curves = [found for runs in replicates if (found := replicate_curves(runs, measure)) is not None]
    seeds = dict.fromkeys(run.seed for runs in replicates for run in runs)
    shared = [_shared(arm, [run for runs in replicates for run in runs if run.seed == seed], measure) for seed in seeds]
    common, *own_from = np.mean(shared, axis=0).tolist()
    if len(curves) < len(sizes) or np.isnan(common):
        return None
    members = zip(sizes, curves, own_from, strict=True)
    sized = tuple(_Member(size, run, run.decayed or run, own) for size, run, own in members)
    return _Family(arm, measure, sized, common)


def _shared(arm: ArmCurve, runs: Sequence[StageCurve], measure: Measure) -> list[float]:
    """Return the cost of the stages that several of the given runs need, followed by one cost for each run: the
    cumulative cost at the start of the first stage that only this run needs. The first cost includes the models from
    which the arm started."""
    stages = {stage.key: stage for run in arm.stages for stage in run.stages}
    parents = {key: stage.parent for key, stage in stages.items()}
    lines = [[stages[key] for key in lineage(run.stages[-1].key, parents.get) if key in stages] for run in runs]
    needed = Counter(stage.key for line in lines for stage in line)
    spent = {line[0].parent: line[0].start for line in lines}  # models from which the arm started
    spent |= {key: stages[key].marginal for key, times in needed.items() if times > 1}
    own = (next((each.start for each in line if needed[each.key] == 1), line[-1].cumulative) for line in lines)
    return [sum(cost.of(measure) for cost in spent.values() if cost), *(cost.of(measure) for cost in own if cost)]
