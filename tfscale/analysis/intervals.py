"""Confidence intervals of results from a few runs and a fixed validation text."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.95
"""Confidence level: the share of repetitions of an experiment whose interval contains the truth."""


@dataclass(frozen=True)
class Interval:
    """Central confidence interval; each tail has half of 1 - LEVEL."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def interval_of(draws: Array) -> Interval:
    """Return the interval that contains the central share LEVEL of the draws, which may be infinite but not NaN."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], method="inverted_cdf")
    return Interval(float(low), float(high))


def surely(happened: NDArray[np.bool_]) -> bool:
    """Return True if the event happened in all draws except at most the share of one tail."""
    return bool(happened.mean() >= 1 - (1 - LEVEL) / 2)
