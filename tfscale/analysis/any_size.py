"""Best model from scratch of any size at the chain's compute.

A comparison at equal size does not show whether growing was useful. If a smaller model from scratch has a lower loss
for the same compute, growing is useful only if the larger model itself is needed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tfscale.analysis.bootstrap import ReplicateCurves, draw_together, perplexities
from tfscale.analysis.equal_cost import EqualCompute
from tfscale.analysis.intervals import interval_of

ArmSize = tuple[str, str]
"""Key that identifies runs: the name of an arm, and a size."""


@dataclass(frozen=True)
class ScratchEnd:
    """Final evaluation of a run from scratch at one budget."""

    arm: str
    size: str
    run: ReplicateCurves
    """Curves of the run. Their last `ends` points are the final evaluations at all budgets."""
    point: int
    """Negative index of this evaluation among the points of the curves."""

    @property
    def loss(self) -> float:
        return float(self.run.mean.losses[0, self.point])

    @property
    def compute(self) -> float:
        return math.exp(self.run.mean.log_compute[0, self.point])


@dataclass(frozen=True)
class BestOfAnySize:
    """Comparison of the chain's model of one size with the best model from scratch, of any size, that cost no more."""

    arm: str
    size: str
    comparison: EqualCompute


def best_end(chain: ReplicateCurves, scratch: Mapping[ArmSize, ReplicateCurves | None]) -> ScratchEnd | None:
    """Return the final evaluation with the lowest loss among all runs from scratch that cost no more than the chain's
    model, or None if there is none. A run from scratch that is also the chain's run is excluded.

    Args:
        scratch: curves of the runs from scratch by arm and size, or None for runs without measurements.
    """
    if not chain.finished:
        return None
    compute = math.exp(chain.mean.log_compute[0, -1])
    ends = [
        end
        for (arm, size), run in scratch.items()
        if run is not None and run.finished and run.keys != chain.keys
        for end in _ends(arm, size, run)
        if end.compute <= compute + 1.001 * run.step  # a run ends after a whole step; the factor allows for rounding
    ]
    return min(ends, key=lambda end: end.loss, default=None)


def _ends(arm: str, size: str, run: ReplicateCurves) -> list[ScratchEnd]:
    read = run.decayed or run
    return [ScratchEnd(arm, size, read, point) for point in range(-read.ends, 0)]


def best_of_any_size(
    chain: ReplicateCurves | None, scratch: Mapping[ArmSize, ReplicateCurves | None]
) -> BestOfAnySize | None:
    """Compare the chain's model with the best model from scratch that cost no more (`best_end`), or return None if
    there is none. The confidence interval does not account for the choice of the best model."""
    best = best_end(chain, scratch) if chain else None
    if chain is None or best is None:
        return None
    drawn, interval = draw_together(chain, best.run), None
    if drawn.over:
        of_chain, of_best = (perplexities(curves.losses) for curves in drawn.curves)
        interval = interval_of(of_chain[:, -1] - of_best[:, best.point])
    perplexity = math.exp(chain.mean.losses[0, -1])
    comparison = EqualCompute(best.compute, perplexity, math.exp(best.loss), False, interval, drawn.over)
    return BestOfAnySize(best.arm, best.size, comparison)
