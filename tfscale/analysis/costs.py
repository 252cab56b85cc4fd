"""The three costs, and what a chain saves against another arm.

Cumulative: all that a model's lineage took, its base included. Marginal: this stage alone, its parent a gift. Family:
all that an arm took to have every size up to and including this one. They answer different questions, so each is named
wherever it appears.

Speed-up and saving hold at equal perplexity, of cumulative cost: speed-up = scratch / progressive - 1 (as in
arXiv 2405.15319), saving = 1 - progressive / scratch (as in arXiv 2110.07143). A speed-up of 54% is a saving of 35%.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tfscale.analysis.curves import NOTHING, ArmCurve, Measure, StageCurve, Totals, curve

Points = Sequence[tuple[float, float]]
"""(compute, perplexity), in order of compute."""

Reach = Literal["reached", "at least", "not reached"]


def cumulative(stage: StageCurve) -> Totals | None:
    """Cost of the stage's model, base included; None before it has finished."""
    return stage.end.totals if stage.end else None


def marginal(stage: StageCurve) -> Totals | None:
    """Cost of the stage alone; None before it has finished."""
    return stage.end.totals - stage.start if stage.end and stage.start else None


def family(arm: ArmCurve, size: str) -> Totals | None:
    """Cost of the arm's stages up to and including `size`, and of what they started from, each counted once.

    For a chain that is the cumulative cost, for runs from scratch their sum. None before all of them have finished.
    """
    sizes = [stage.size for stage in arm.stages]
    wanted = {stage.key: stage for stage in arm.stages[: sizes.index(size) + 1]}
    inherited = {stage.parent: stage.start or NOTHING for stage in wanted.values() if stage.parent not in wanted}
    costs = [marginal(stage) for stage in wanted.values()]
    finished = [cost for cost in costs if cost is not None]
    return sum([*finished, *inherited.values()], NOTHING) if len(finished) == len(costs) else None


def perplexity_at(points: Points, compute: float) -> float | None:
    """Perplexity at `compute`, interpolated between logarithms; None outside the measured range."""
    if not points or not points[0][0] <= compute <= points[-1][0]:
        return None
    computes, perplexities = np.log(np.array(points).T)
    return float(np.exp(np.interp(np.log(compute), computes, perplexities)))


def first_reach(points: Points, target: float) -> tuple[Reach, float | None]:
    """Whether, and at which compute, a curve first came down to the perplexity `target`.

    `reached`: between two points, interpolated between logarithms. `at least`: the first point was there already, so
    the compute is an upper bound and what follows from it holds at least.
    """
    for index, (compute, perplexity) in enumerate(points):
        if perplexity <= target:
            if index == 0:
                return "at least", compute
            (x0, x1), (y0, y1) = np.log(np.array(points[index - 1 : index + 1]).T)
            return "reached", float(np.exp(x0 + (x1 - x0) * (np.log(target) - y0) / (y1 - y0)))
    return "not reached", None


@dataclass(frozen=True)
class EqualPerplexity:
    """What it took to get to the perplexity with which an arm's run of one size ended.

    The chain's evaluations on the way are read as they are, before its learning rate has come down; a chain planned
    to stop there would be there no later. So the speed-up is not flattered.
    """

    state: Reach
    """`at least`: the chain's stage began below the target, so speed-up and saving are lower bounds."""
    target: float
    """The arm's final perplexity."""
    arm: float
    """The arm's cumulative cost there."""
    chain: float | None
    """The chain's cumulative cost when its stage of that size first was there; None: not reached."""
    gap: float
    """Perplexity by which the chain's best evaluation stays above the target; 0 when reached."""

    @property
    def speed_up(self) -> float | None:
        return None if self.chain is None else self.arm / self.chain - 1

    @property
    def saving(self) -> float | None:
        return None if self.chain is None else 1 - self.chain / self.arm


@dataclass(frozen=True)
class EqualCompute:
    """Perplexities at the cumulative cost with which the chain's stage of one size ended."""

    compute: float
    chain: float
    arm: float
    interpolated: bool
    """The arm's perplexity lies between two of its evaluations, and is not the end of a run of that very cost. Its
    learning rate had not come down there, which flatters the chain."""

    @property
    def difference(self) -> float:
        """Chain minus arm: below 0 the chain is better."""
        return self.chain - self.arm


def at_equal_perplexity(chain: StageCurve, other: StageCurve, measure: Measure) -> EqualPerplexity | None:
    """The cost of the other run's final perplexity, both ways; None before that run has finished or the chain's stage
    has measured anything."""
    points, end = curve([chain], measure), _end(other, measure)
    if not points or end is None:
        return None
    cost, target = end
    state, reached = first_reach(points, target)
    best = min(perplexity for _, perplexity in points)
    return EqualPerplexity(state, target, cost, reached, gap=max(0.0, best - target))


def at_equal_compute(chain: StageCurve, other: StageCurve, measure: Measure) -> EqualCompute | None:
    """Both perplexities at the cost of the chain's stage; None before both have finished, or where the other run has no
    measurement."""
    end, other_end = _end(chain, measure), _end(other, measure)
    if end is None or other_end is None:
        return None
    compute, perplexity = end
    if abs(other_end[0] - compute) <= _tolerance(other, measure):
        return EqualCompute(compute, perplexity, other_end[1], interpolated=False)
    between = perplexity_at(curve([other], measure), compute)
    return None if between is None else EqualCompute(compute, perplexity, between, interpolated=True)


def cost_ratio(chain: StageCurve, other: StageCurve, measure: Measure) -> float | None:
    """The other run's cumulative cost over the chain's, whatever their perplexities; None before both have finished.

    It is no speed-up, unless the perplexities happen to be equal.
    """
    if not (chain.end and other.end):
        return None
    return other.end.totals.of(measure) / chain.end.totals.of(measure)


def _end(stage: StageCurve, measure: Measure) -> tuple[float, float] | None:
    """The curve's last point, if the stage has finished and its cost is known in this measure."""
    points = curve([stage], measure) if stage.finished else []
    return points[-1] if points else None


def _tolerance(stage: StageCurve, measure: Measure) -> float:
    # A run ends on a whole step, so "the same compute" is the same within one; the factor is for rounding.
    return 1.001 * stage.step_size.of(measure) if stage.step_size else 0.0
