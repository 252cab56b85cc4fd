"""The noise floor: how far apart two single runs must end before their difference counts."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tfscale.analysis.bootstrap import Sample
from tfscale.analysis.intervals import LEVEL


@dataclass(frozen=True)
class NoiseFloor:
    """Two runs that end closer than this do not differ."""

    nats: float
    """Of loss, a token."""
    source: Literal["seeds", "assumed"]
    """`seeds`: from runs that differ in their seed alone. `assumed`: what the configuration says."""


def noise_floor(samples: Iterable[Sample], assumed: float | None) -> NoiseFloor | None:
    """From the seeds of all runs that have several, pooled, or else as assumed; None: not known.

    From seeds it is the difference that two runs which differ in their seed alone stay below LEVEL of the time: s of
    the pooled final losses, times sqrt(2), times the quantile of Student's t.
    """
    from scipy.special import stdtrit

    several = {run.keys: run.losses[:, -1] for run in samples if run.finished and run.size > 1}
    freedom = sum(len(losses) - 1 for losses in several.values())
    if not freedom:
        return None if assumed is None else NoiseFloor(assumed, "assumed")
    variance = sum(float(((losses - losses.mean()) ** 2).sum()) for losses in several.values()) / freedom
    quantile = float(stdtrit(freedom, 1 - (1 - LEVEL) / 2))
    return NoiseFloor(float(np.sqrt(variance)) * math.sqrt(2) * quantile, "seeds")
