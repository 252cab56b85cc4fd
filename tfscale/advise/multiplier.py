"""Compute multiplier of growth, pi(L) = C_scratch(L) / C_grown(L), as in arXiv 2609.19107.

Compute is interpolated between measured runs, linearly in the logarithms of compute and loss, and never extrapolated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfscale.advise.runs import Run
from tfscale.analysis.intervals import Array


@dataclass(frozen=True)
class Multiplier:
    """Compute multiplier at one loss."""

    loss: float
    """Validation loss in nats per token."""
    multiplier: float
    """Compute from scratch, divided by the compute of growth including the base, at this loss."""


def multipliers(scratch: Sequence[Run], grown: Sequence[Run]) -> tuple[Multiplier, ...]:
    """Return the compute multiplier at the final loss of each run on the frontier from scratch or by growth, the
    highest loss first. Losses that only one frontier reaches are omitted."""
    if not scratch or not grown:
        return ()
    return multipliers_of(*(np.log([(run.flops, run.loss) for run in runs]) for runs in (scratch, grown)))


def multipliers_of(scratch: Array, grown: Array) -> tuple[Multiplier, ...]:
    """Return the compute multipliers for points (log compute, log loss) [runs, 2]."""
    fronts = [_frontier(points) for points in (scratch, grown)]
    low, high = max(front[-1, 1] for front in fronts), min(front[0, 1] for front in fronts)
    losses = np.unique(np.concatenate([front[:, 1] for front in fronts]))[::-1]
    common = losses[(losses >= low) & (losses <= high)]
    of_scratch, of_grown = (np.interp(common, front[::-1, 1], front[::-1, 0]) for front in fronts)
    ratios = np.exp(of_scratch - of_grown)
    return tuple(Multiplier(float(np.exp(at)), float(ratio)) for at, ratio in zip(common, ratios, strict=True))


def _frontier(points: Array) -> Array:
    """Return the points whose loss is lower than that of all points with the same or less compute, in order of
    compute."""
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
    best = np.minimum.accumulate(ordered[:, 1])
    return np.asarray(ordered[np.concatenate([[True], ordered[1:, 1] < best[:-1]])])
