"""Confidence intervals for results of a few runs on a fixed validation text."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.95
"""Default confidence level: the fraction of repeated experiments whose confidence interval contains the true value.
Intervals in advice have another level (`tfscale.advise.law.LEVEL`)."""


@dataclass(frozen=True)
class Interval:
    """Confidence interval that is either central, with the same probability in each tail, or one-sided, with one
    infinite end. An infinite end means that the limit is unknown."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __neg__(self) -> "Interval":
        return Interval(-self.high, -self.low)


def interval_of(draws: Array, level: float = LEVEL) -> Interval:
    """Return the central interval that contains the fraction `level` of bootstrap samples. Samples may be infinite but
    not NaN."""
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], method="inverted_cdf")
    return Interval(float(low), float(high))


Bound = Literal["at least", "at most"]


def bound_of(draws: Array, bound: Bound) -> Interval:
    """Return the one-sided interval that contains the fraction LEVEL of bootstrap samples, with only a lower end (`at
    least`) or only an upper end (`at most`). Samples may be infinite but not NaN."""
    level = 1 - LEVEL if bound == "at least" else LEVEL
    end = float(np.quantile(draws, level, method="inverted_cdf"))
    return Interval(end, math.inf) if bound == "at least" else Interval(-math.inf, end)


def surely(happened: NDArray[np.bool_]) -> bool:
    """Return True if an event happened in nearly all bootstrap samples, that is, in at least the fraction
    1 - (1 - LEVEL) / 2 of them."""
    return bool(happened.mean() >= 1 - (1 - LEVEL) / 2)
