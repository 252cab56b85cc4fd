"""Comparison of a chain with another arm at one size, at equal perplexity and at equal compute.

At equal perplexity, speed-up and saving compare cumulative costs: speed-up = arm / chain - 1 (as in arXiv 2405.15319)
and saving = 1 - chain / arm (as in arXiv 2110.07143). A speed-up of 54% is a saving of 35%. At equal compute, the
perplexities are compared.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tfscale.analysis.bootstrap import Curves, ReplicateCurves, Source, draw_together, perplexities
from tfscale.analysis.intervals import Array, Bound, Interval, bound_of, interval_of, surely
from tfscale.analysis.noise import NoiseFloor, noise_floor

Reach = Literal["reached", "at least", "at most", "not reached"]
Outcome = Literal["saves", "no difference", "costs more", "not reached"]
Standing = Literal["better", "level", "worse"]


@dataclass(frozen=True)
class EqualPerplexity:
    """Costs at which an arm and the chain reached the same perplexity at one size, averaged over seeds.

    The target is the final perplexity of the arm. The chain's cost is read from its evaluations during training, before
    its learning rate was decayed. A chain planned to end at this perplexity would cost at most as much, so the speed-up
    is not overestimated.

    If the arm has runs at several budgets, its final perplexity is that of the run with the largest budget. If the
    chain did not reach the final perplexity of such an arm, the target is the chain's best perplexity. The arm's cost
    at this target is interpolated between the ends of its runs, where the learning rate had been decayed. If the arm
    reached the target during the run with the smallest budget, its cost is only an upper bound.
    """

    state: Reach
    """State of the chain. `reached`: the chain reached the target. `at least`: the chain's stage of this size started
    at or below the target, so speed-up and saving are lower bounds. `at most`: the arm reached the target during its
    run at the smallest budget, so speed-up and saving are upper bounds. `not reached`: the chain did not reach the
    target."""
    target: float
    """Perplexity that the chain and the arm reached, or the arm's final perplexity if the chain did not reach it."""
    arm: float
    """Cumulative cost at which the arm reached the target, in the unit of the measure."""
    chain: float | None
    """Cumulative cost of the chain when its stage of this size first reached the target, or None if it did not."""
    gap: float
    """Difference between the chain's best perplexity and the target, or 0 if the target was reached."""
    outcome: Outcome
    """Verdict on the chain. `saves`: the chain reached the target at a lower cost, beyond noise. `costs more`: the
    chain reached the target at a higher cost, or did not reach it and the arm reached the chain's best perplexity at a
    lower cost. `not reached`: the chain did not reach the target, and the cost of reaching it is unknown. `no
    difference`: the difference in cost is within the known noise."""
    excess: float
    """Excess cost of the chain as a fraction of the arm's cost, at the perplexity that both sides reached: the arm's
    final perplexity, or the chain's best perplexity if that is higher. A saving is negative."""
    interval: Interval | None
    """Confidence interval of the saving (the negative excess), or None if it is unknown. It is one-sided if the saving
    is a bound, unless the outcome is `no difference`. An end beyond which costs were not measured is infinite."""
    over: tuple[Source, ...]
    """Sources of variation that the confidence interval covers."""
    noise: NoiseFloor | None = None
    """Noise floor that the verdict uses, or None if it is unknown, or not needed because both sides have several
    seeds."""
    exact: bool = False
    """True if the learning rates of both sides had been decayed at these costs. Otherwise, one cost was read during
    training, where a planned run would have been cheaper."""

    @property
    def bound(self) -> Bound | None:
        """Relation of the true saving to `saving`: `at least` or `at most` as large, or None if `saving` is exact. A
        cost that was read during training is an upper bound on the cost of a planned run. The true saving is therefore
        at least `saving` if this cost is the chain's, and at most `saving` if it is the arm's."""
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
    """Perplexities of the chain and another arm at the cumulative cost of the chain's model of one size, averaged over
    seeds."""

    compute: float
    """Cumulative cost of the chain's model or, in a `BestOfAnySize`, of the model from scratch."""
    chain: float
    arm: float
    interpolated: bool
    """True if the arm's perplexity is interpolated between two evaluations during training, False if it is that of a
    finished run. During training, the arm's learning rate had not been decayed, which favours the chain."""
    interval: Interval | None
    """Confidence interval of the difference, or None if it is unknown."""
    over: tuple[Source, ...]

    @property
    def difference(self) -> float:
        """Perplexity of the chain minus perplexity of the arm, which is negative if the chain is better."""
        return self.chain - self.arm


def at_equal_perplexity(
    chain: ReplicateCurves | None, arm: ReplicateCurves | None, assumed: float | None
) -> EqualPerplexity | None:
    """Return the costs at which the arm and the chain reached the arm's final perplexity, or None if the arm's run has
    not finished or the chain has no measurement.

    Args:
        assumed: noise floor in nats if both sides have one seed, or None if it is unknown.
    """
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
    """Return the confidence interval of the saving.

    Args:
        ratios: ratios of the chain's cost to the arm's cost in each bootstrap sample.
        opposite: mask [samples] that is True for bootstrap samples that bound the saving from the opposite side.
    """
    savings = -np.expm1(ratios.logarithms)
    if equal.bound is None or equal.outcome == "no difference":
        return interval_of(np.where(ratios.bounded, np.where(ratios.reached, np.inf, -np.inf), savings))
    return bound_of(np.where(opposite, -np.inf if equal.bound == "at least" else np.inf, savings), equal.bound)


def at_equal_compute(chain: ReplicateCurves | None, arm: ReplicateCurves | None) -> EqualCompute | None:
    """Return the perplexities of the chain and the arm at the cumulative cost of the chain's model, or None if one of
    them has not finished or the arm was not measured up to this cost."""
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
    return EqualCompute(float(compute), math.exp(chain_loss), math.exp(arm_loss), interpolated, interval, drawn.over)


@dataclass(frozen=True, eq=False)
class CostRatios:
    """Ratios of the chain's cost to the arm's cost, one per pair of curves. The costs are those at the perplexity that
    both sides reached: the arm's final perplexity or, if the chain did not reach it, the chain's best perplexity."""

    logarithms: Array
    """Logarithms of the ratios [curves], which are negative if the chain's cost is lower."""
    reached: NDArray[np.bool_]
    """Mask [curves] that is True if the chain reached the arm's final perplexity."""
    bounded: NDArray[np.bool_]
    """Mask [curves] that is True if a cost is only an upper bound, because a run had reached the perplexity by its
    first evaluation. This is the chain's run if the chain reached the arm's final perplexity, and otherwise the arm's
    run."""


def log_cost_ratios(chain: Curves, arm: Curves) -> CostRatios:
    """Return the logarithm of the ratio of the chain's cost to the arm's cost for each pair of curves, at the
    perplexity that both sides reached."""
    rows = np.arange(len(chain.losses))
    there, early = first_reaches(chain.log_compute, chain.losses, arm.losses[:, -1])
    reached = np.isfinite(there)
    best = chain.losses.argmin(axis=1)
    back, early_back = first_reaches(arm.log_compute, arm.losses, chain.losses[rows, best])
    behind = chain.log_compute[rows, best] - np.where(reached, 0.0, back)
    logarithms = np.where(reached, there - arm.log_compute[:, -1], behind)
    return CostRatios(logarithms, reached, np.where(reached, early, early_back))


def decide_outcome(ratio: float, reached: bool, variations: list[CostRatios]) -> Outcome:
    """Return the verdict on the chain's cost at the arm's final perplexity.

    `costs more`: all intervals of the cost ratio are above 1. `saves`: all intervals are below 1, and the chain reached
    the perplexity, both as measured and in nearly all variations. `not reached`: the chain missed the perplexity, both
    as measured and in nearly all variations. `no difference`: all other cases.

    Args:
        ratio: logarithm of the ratio of the chain's cost to the arm's cost.
        reached: True if the chain reached the arm's final perplexity.
        variations: ratios for bootstrap samples of seeds and documents, and for losses shifted by the noise floor.
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
    """Return whether the chain is better or worse than an arm at equal compute, or level with it within the noise.

    Args:
        noise: noise floor of the comparison, or None if it is unknown or not needed.
    """
    interval = compared.interval or Interval(compared.difference, compared.difference)
    floor = 0.0 if noise is None else noise.nats
    if 0.0 in interval or abs(math.log(compared.chain / compared.arm)) <= floor:
        return "level"
    return "better" if compared.difference < 0 else "worse"


def _losses_at_equal_compute(chain: Curves, arm: Curves, interpolated: bool) -> tuple[Array, Array] | None:
    """Return the losses of the chain and of the arm [curves] at the chain's final compute, in nats per token, or None
    if the arm was not measured up to this compute."""
    if not interpolated:
        return chain.losses[:, -1], arm.losses[:, -1]
    losses = losses_at(arm.log_compute, arm.losses, chain.log_compute[:, -1])
    return None if np.isnan(losses).any() else (chain.losses[:, -1], losses)


# The loss (the logarithm of perplexity) is interpolated linearly over the logarithm of compute, and never extrapolated.
# Arrays contain one curve per bootstrap sample.


def losses_at(log_compute: Array, losses: Array, at: Array) -> Array:
    """Return the loss of each curve at an amount of compute, one amount per curve.

    Args:
        log_compute, losses: curves [curves, points], with points in order of compute.
        at: logarithms of compute [curves].

    Returns:
        Losses [curves], which are NaN outside the measured range.
    """
    last = log_compute.shape[1] - 1
    after = np.clip((log_compute < at[:, None]).sum(axis=1), min(1, last), last)
    before = np.maximum(after - 1, 0)
    value = _between(log_compute, losses, before, after, at)
    outside = (at < log_compute[:, 0]) | (at > log_compute[:, -1])
    return np.where(outside, np.nan, value)


def first_reaches(log_compute: Array, losses: Array, targets: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Return the compute at which each curve first reached its target loss.

    Args:
        log_compute, losses: curves [curves, points], with points in order of compute.
        targets: losses to reach [curves].

    Returns:
        Logarithms of compute [curves], which are infinite if the target was not reached, and a mask [curves] that is
        True if the first point had already reached the target, so that the compute is an upper bound.
    """
    there = losses <= targets[:, None]
    after = there.argmax(axis=1)
    before = np.maximum(after - 1, 0)
    at = _between(losses, log_compute, before, after, targets)
    return np.where(there.any(axis=1), at, np.inf), there[:, 0]


def _between(x: Array, y: Array, before: NDArray[np.intp], after: NDArray[np.intp], at: Array) -> Array:
    """Return y at x = `at` on the line through two points of each curve, or the y of the point if both points are the
    same."""
    rows = np.arange(len(x))
    x0, x1, y0, y1 = x[rows, before], x[rows, after], y[rows, before], y[rows, after]
    width = x1 - x0
    fraction = np.divide(at - x0, width, out=np.ones_like(width), where=width != 0)
    return y0 + (y1 - y0) * fraction
