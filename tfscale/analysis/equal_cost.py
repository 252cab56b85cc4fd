"""Comparison of a chain with another arm at one size, at equal perplexity and at equal compute.

At equal perplexity, the cumulative costs of the arm and the chain are compared: the speed-up is arm / chain - 1 (as in
arXiv 2405.15319), and the saving is 1 - chain / arm (as in arXiv 2110.07143), where `arm` and `chain` are the costs. A
speed-up of 54% is a saving of 35%. At equal compute, the perplexities are compared. The chain is also compared with
models from scratch of other sizes.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tfscale.analysis.bootstrap import Curves, CurvesBySize, ReplicateCurves, Source, draw_together, perplexities
from tfscale.analysis.intervals import Array, Bound, Interval, bound_of, interval_of, surely
from tfscale.analysis.noise import NoiseFloor, noise_floor

Reach = Literal["reached", "at least", "at most", "not reached"]
Outcome = Literal["saves", "no difference", "costs more", "not reached"]
Standing = Literal["better", "level", "worse"]


@dataclass(frozen=True)
class EqualPerplexity:
    """Costs at which an arm and the chain reached the same perplexity at one size, averaged over seeds.

    The target is the final perplexity of the arm. If the arm has runs at several budgets and the chain did not reach
    the final perplexity of the run at the largest budget, the target is the chain's best perplexity. The arm's cost is
    then interpolated between the ends of its runs or, below the smallest budget, read from the run at this budget. A
    cost that is read from an evaluation during training, before the decay of the learning rate, is an upper bound on
    the cost of a run planned to end at the target.
    """

    state: Reach
    """State of the chain relative to the target. `reached`: the chain reached the target. `at least`: the chain's stage
    of this size started at or below the target, so the saving is a lower bound. `at most`: the arm reached the target
    during its run at the smallest budget, so the saving is an upper bound. `not reached`: the chain did not reach the
    target."""
    target: float
    arm: float
    """Cumulative cost at which the arm reached the target, in the unit of the chosen cost measure."""
    chain: float | None
    """Cumulative cost at which the chain's stage of this size first reached the target, or None if it did not."""
    gap: float
    """Difference between the chain's best perplexity and the target, or 0 if the target was reached."""
    outcome: Outcome
    """Verdict on the chain (`decide_outcome`)."""
    excess: float
    """Excess cost of the chain as a fraction of the arm's cost, at the lowest perplexity that both have reached. This
    is the arm's final perplexity or, if the chain did not reach it, the chain's best perplexity. A negative excess is a
    saving."""
    interval: Interval | None
    """Confidence interval of the saving (the negative excess), or None if it is unknown. It is one-sided if the saving
    is a bound, unless the outcome is `no difference`. An end that lies beyond the measured costs is infinite."""
    over: tuple[Source, ...]
    """Sources of variation that the confidence interval covers."""
    noise: NoiseFloor | None = None
    """Noise floor that the verdict uses, or None if it is unknown or not needed."""
    exact: bool = False
    """True if `chain` is the cost at the chain's best perplexity, and `arm` is interpolated between the ends of the
    arm's runs. Neither cost is then regarded as an upper bound."""

    @property
    def bound(self) -> Bound | None:
        """Relation between the true saving and `saving`. `at least`: the true saving is at least as high, because the
        chain's cost is an upper bound. `at most`: the true saving is at most as high, because the arm's cost is an
        upper bound. None if both costs are exact."""
        if self.exact:
            return None
        return "at least" if self.state in ("reached", "at least") else "at most"

    @property
    def speed_up(self) -> float | None:
        return None if self.chain is None else self.arm / self.chain - 1

    @property
    def saving(self) -> float | None:
        return None if self.chain is None else 1 - self.chain / self.arm

    @property
    def speed_up_interval(self) -> Interval | None:
        return self.interval and Interval(_speed_up(self.interval.low), _speed_up(self.interval.high))


def _speed_up(saving: float) -> float:
    return saving if math.isinf(saving) else 1 / (1 - saving) - 1


@dataclass(frozen=True)
class EqualCompute:
    """Perplexities of the chain and another arm at the chain's cumulative cost at one size, averaged over seeds."""

    compute: float
    """Cumulative cost of the chain's model or, in a `BestOfAnySize`, of the model from scratch."""
    chain: float
    arm: float
    interpolated: bool
    """True if the arm's perplexity is interpolated between two evaluations during training, before the decay of its
    learning rate, which favours the chain. False if it is the perplexity of a finished run."""
    interval: Interval | None
    """Confidence interval of `difference`, or None if it is unknown."""

    @property
    def difference(self) -> float:
        """Perplexity of the chain minus perplexity of the arm, which is negative if the chain is better."""
        return self.chain - self.arm

    @property
    def absolute_interval(self) -> Interval | None:
        """Confidence interval of the absolute value of `difference`, or None if it is unknown."""
        return -self.interval if self.interval and self.difference < 0 else self.interval


def at_equal_perplexity(
    chain: ReplicateCurves | None, arm: ReplicateCurves | None, assumed: float | None
) -> EqualPerplexity | None:
    """Compare the costs of the chain and the arm at the arm's final perplexity, or at the chain's best perplexity in
    the case described in `EqualPerplexity`. Return None if the arm's run has not finished or the chain has no
    measurement. `assumed` has the same meaning as in `noise_floor`."""
    if chain is None or arm is None or not arm.finished:
        return None
    arm = arm.decayed or arm
    of_chain, of_arm = chain.mean, arm.mean
    found = log_cost_ratios(of_chain, of_arm)
    ratio, reached, exact = float(found.logarithms[0]), bool(found.reached[0]), False
    target, cost = float(of_arm.losses[0, -1]), float(np.exp(of_arm.log_compute[0, -1]))
    state: Reach = "not reached" if not reached else "at least" if found.bounded[0] else "reached"
    if arm.ends > 1 and not reached:
        best = int(of_chain.losses.argmin())
        target, at = float(of_chain.losses[0, best]), float(of_chain.log_compute[0, best] - ratio)
        exact = at >= float(of_arm.log_compute[0, -arm.ends])
        cost, reached, state = math.exp(at), True, "reached" if exact else "at most"
    drawn = draw_together(chain, arm)
    ratios = log_cost_ratios(*drawn.curves) if drawn.over else None
    variations = [] if ratios is None else [ratios]
    floor = None if "seeds" in drawn.over else noise_floor(chain, arm, assumed)
    if floor is not None:
        variations += [log_cost_ratios(of_chain.shifted(shift), of_arm) for shift in (-floor.nats, floor.nats)]
    if arm.ends > 1:
        variations = [replace(each, reached=np.ones_like(each.reached)) for each in variations]
    equal = EqualPerplexity(
        state=state,
        target=math.exp(target),
        arm=cost,
        chain=cost * math.exp(ratio) if reached else None,
        gap=max(0.0, math.exp(of_chain.losses.min()) - math.exp(target)),
        outcome=decide_outcome(ratio, reached, variations),
        excess=math.expm1(ratio),
        interval=None,
        over=drawn.over,
        noise=floor,
        exact=exact,
    )
    if ratios is None:
        return equal
    opposite = (ratios.reached != found.reached) & (arm.ends == 1)
    return replace(equal, interval=_saving_interval(ratios, opposite, equal))


def _saving_interval(ratios: "CostRatios", opposite: NDArray[np.bool_], equal: EqualPerplexity) -> Interval:
    """Return the confidence interval of the saving, given the cost ratios in all bootstrap samples. `opposite` is a
    mask of the samples in which the saving has the opposite bound, which is an upper bound if `equal.bound` is `at
    least`, and a lower bound if `equal.bound` is `at most`."""
    savings = -np.expm1(ratios.logarithms)
    if equal.bound is None or equal.outcome == "no difference":
        return interval_of(np.where(ratios.bounded, np.where(ratios.reached, np.inf, -np.inf), savings))
    return bound_of(np.where(opposite, -np.inf if equal.bound == "at least" else np.inf, savings), equal.bound)


def at_equal_compute(chain: ReplicateCurves | None, arm: ReplicateCurves | None) -> EqualCompute | None:
    """Return the perplexities of the chain and the arm at the cumulative cost of the chain's model, or None if either
    run has not finished or the arm was not measured up to this cost."""
    if chain is None or arm is None or not (chain.finished and arm.finished):
        return None
    of_chain, of_arm = chain.mean, arm.mean
    compute, end = np.exp(of_chain.log_compute[0, -1]), np.exp(of_arm.log_compute[0, -1])
    # A run ends after a whole step, so equal compute means equal within one step; the factor allows for rounding.
    interpolated = bool(abs(end - compute) > 1.001 * arm.step)
    differing = _losses_at_equal_compute(of_chain, of_arm, interpolated)
    if differing is None:
        return None
    ((chain_loss,), (arm_loss,)) = differing
    drawn = draw_together(chain, arm)
    interval = None
    if drawn.over and (draws := _losses_at_equal_compute(drawn.curves[0], drawn.curves[1], interpolated)) is not None:
        interval = interval_of(perplexities(draws[0]) - perplexities(draws[1]))
    return EqualCompute(float(compute), math.exp(chain_loss), math.exp(arm_loss), interpolated, interval)


@dataclass(frozen=True, eq=False)
class CostRatios:
    """Ratios of the chain's cost to the arm's cost, one per pair of curves. The costs are those at the lowest
    perplexity that both curves reached: the arm's final perplexity or, if the chain did not reach it, the chain's best
    perplexity."""

    logarithms: Array
    """Logarithms of the ratios [curves], which are negative if the chain's cost is lower."""
    reached: NDArray[np.bool_]
    """Mask [curves] that is True if the chain reached the arm's final perplexity."""
    bounded: NDArray[np.bool_]
    """Mask [curves] that is True if one of the two costs is only an upper bound, because the perplexity had already
    been reached at the first evaluation. This is the chain's cost or, if the chain did not reach the arm's final
    perplexity, the arm's cost."""


def log_cost_ratios(chain: Curves, arm: Curves) -> CostRatios:
    """Return the ratio of the chain's cost to the arm's cost for each pair of curves (`CostRatios`)."""
    rows = np.arange(len(chain.losses))
    there, early = chain.first_reach(arm.losses[:, -1])
    reached = np.isfinite(there)
    best = chain.losses.argmin(axis=1)
    back, early_back = arm.first_reach(chain.losses[rows, best])
    behind = chain.log_compute[rows, best] - np.where(reached, 0.0, back)
    logarithms = np.where(reached, there - arm.log_compute[:, -1], behind)
    return CostRatios(logarithms, reached, np.where(reached, early, early_back))


def decide_outcome(ratio: float, reached: bool, variations: list[CostRatios]) -> Outcome:
    """Return the verdict on the chain's cost at the arm's final perplexity.

    `costs more`: all intervals of the cost ratio are above 1. `saves`: all intervals are below 1, and the chain reached
    the perplexity, both as measured and in nearly all samples of each variation (`surely`). `not reached`: the chain
    did not reach the perplexity, both as measured and in nearly all samples of each variation. `no difference`: all
    other cases.

    Args:
        ratio, reached: logarithm of the measured cost ratio, and whether the chain reached the perplexity.
        variations: cost ratios for bootstrap samples of seeds and documents, and for losses shifted by the noise floor.
    """
    intervals = [interval_of(each.logarithms) for each in variations] or [Interval(ratio, ratio)]
    dearer = all(interval.low > 0 for interval in intervals)
    cheaper = all(interval.high < 0 for interval in intervals)
    if dearer:
        return "costs more"
    if reached:
        return "saves" if cheaper and all(surely(each.reached) for each in variations) else "no difference"
    return "not reached" if all(surely(~each.reached) for each in variations) else "no difference"


def decide_standing(compared: EqualCompute, noise: NoiseFloor | None) -> Standing:
    """Return `better` if the chain's perplexity at equal compute is lower than the arm's, `worse` if it is higher, and
    `level` if the difference is within the noise."""
    interval = compared.interval or Interval(compared.difference, compared.difference)
    floor = 0.0 if noise is None else noise.nats
    if 0.0 in interval or abs(math.log(compared.chain / compared.arm)) <= floor:
        return "level"
    return "better" if compared.difference < 0 else "worse"


def _losses_at_equal_compute(chain: Curves, arm: Curves, interpolated: bool) -> tuple[Array, Array] | None:
    """Return the losses of the chain and of the arm [curves] at the chain's final compute, or None if the arm was not
    measured up to this compute. The arm's losses are its final losses if `interpolated` is False."""
    if not interpolated:
        return chain.losses[:, -1], arm.losses[:, -1]
    losses = arm.losses_at(chain.log_compute[:, -1])
    return None if np.isnan(losses).any() else (chain.losses[:, -1], losses)


@dataclass(frozen=True)
class ScratchEnd:
    """Final evaluation of a run from scratch at one budget."""

    arm: str
    size: str
    run: ReplicateCurves
    """Curves of the run. Their last `ends` points are the final evaluations at all budgets."""
    point: int
    """Index of this evaluation among the points of the curves, counted from the end (negative)."""
    compute: float
    """Cumulative cost, averaged over seeds."""
    loss: float
    """Validation loss in nats per token, averaged over seeds."""


@dataclass(frozen=True)
class BestOfAnySize:
    """Comparison of the chain's model of one size with the best model from scratch, of any size, that cost no more than
    the chain's model. If a smaller model from scratch is better, growing is useful only if the larger model itself is
    needed."""

    arm: str
    size: str
    comparison: EqualCompute


def best_end(chain: ReplicateCurves, scratch: CurvesBySize) -> ScratchEnd | None:
    """Return the final evaluation with the lowest loss among all runs from scratch that cost no more than the chain's
    model, or None if there is no such run or the chain's run has not finished. A run from scratch that is also the
    chain's run is excluded."""
    if not chain.finished:
        return None
    compute = math.exp(chain.mean.log_compute[0, -1])
    ends = []
    for (arm, size), run in scratch.items():
        if run is None or not run.finished or run.keys == chain.keys:
            continue
        read = run.decayed or run
        most = compute + 1.001 * run.step  # a run ends after a whole step; the factor allows for rounding
        for point in range(-read.ends, 0):
            spent, loss = math.exp(read.mean.log_compute[0, point]), float(read.mean.losses[0, point])
            ends += [ScratchEnd(arm, size, read, point, spent, loss)] if spent <= most else []
    return min(ends, key=lambda end: end.loss, default=None)


def best_of_any_size(chain: ReplicateCurves | None, scratch: CurvesBySize) -> BestOfAnySize | None:
    """Compare the chain's model with the best model from scratch that cost no more than the chain's model. Return None
    if `best_end` finds no such model. The confidence interval does not account for the choice of the best model."""
    best = best_end(chain, scratch) if chain else None
    if chain is None or best is None:
        return None
    drawn, interval = draw_together(chain, best.run), None
    if drawn.over:
        of_chain, of_best = (perplexities(curves.losses) for curves in drawn.curves)
        interval = interval_of(of_chain[:, -1] - of_best[:, best.point])
    perplexity = math.exp(chain.mean.losses[0, -1])
    comparison = EqualCompute(best.compute, perplexity, math.exp(best.loss), False, interval)
    return BestOfAnySize(best.arm, best.size, comparison)
