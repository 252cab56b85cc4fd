"""Noise floor of a comparison in which the chain, the other arm or both have a single seed. If one of the two has
several seeds, the variation over these seeds is used for both. Otherwise, the noise floor set in the configuration is
used."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tfscale.analysis.bootstrap import ReplicateCurves
from tfscale.analysis.intervals import LEVEL


@dataclass(frozen=True)
class NoiseFloor:
    """Difference in final loss below which two runs count as equal."""

    nats: float
    """Difference in nats per token."""
    source: Literal["seeds", "assumed"]
    """Source of the noise floor. `seeds`: measured on runs that differ only in their seed. `assumed`: set in the
    configuration."""


def noise_floor(chain: ReplicateCurves, arm: ReplicateCurves, assumed: float | None) -> NoiseFloor | None:
    """Return the noise floor of a comparison, or None if it is unknown or not needed because both the chain and the arm
    have several seeds.

    With probability LEVEL, the mean final losses of two sets of runs that differ only in their seeds differ by less
    than the noise floor. The noise floor is s sqrt(1/n + 1) times the quantile of Student's t distribution with n - 1
    degrees of freedom, where n > 1 is the number of seeds of the chain or of the arm, and s is the standard deviation
    of the final losses of these n seeds.

    Args:
        assumed: noise floor in nats if the chain and the arm have one seed each, or None if it is unknown.
    """
    several = [run for run in (chain, arm) if run.finished and run.size > 1]
    if len(several) == 2:
        return None
    if not several:
        return None if assumed is None else NoiseFloor(assumed, "assumed")
    losses = several[0].losses[:, -1]
    deviation = float(losses.std(ddof=1)) * math.sqrt(sum(1 / run.size for run in (chain, arm)))
    return NoiseFloor(deviation * t_quantile(len(losses) - 1), "seeds")


def t_quantile(freedom: float) -> float:
    """Return the quantile of Student's t distribution with `freedom` degrees of freedom that bounds a central interval
    with probability LEVEL."""
    from scipy.special import stdtrit

    return float(np.asarray(stdtrit(freedom, 1 - (1 - LEVEL) / 2)))
