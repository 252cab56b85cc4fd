"""Reading between a curve's points: never outside what was measured, and linearly in loss over the logarithm of
compute, which is the same as between logarithms of perplexity.

Curves come in stacks, one a bootstrap draw, so all is vectorised.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tfscale.analysis.intervals import Array

Reach = Literal["reached", "at least", "not reached"]


def losses_at(log_compute: Array, losses: Array, at: Array) -> Array:
    """Loss of each curve at its place.

    Args:
        log_compute, losses: [curves, points], points in order of compute.
        at: [curves], logarithms of compute.

    Returns:
        [curves]; NaN outside the measured range.
    """
    last = log_compute.shape[1] - 1
    after = np.clip((log_compute < at[:, None]).sum(axis=1), min(1, last), last)
    before = np.maximum(after - 1, 0)
    value = _between(log_compute, losses, before, after, at)
    outside = (at < log_compute[:, 0]) | (at > log_compute[:, -1])
    return np.where(outside, np.nan, value)


def first_reaches(log_compute: Array, losses: Array, targets: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Where each curve first came down to its target.

    Args:
        log_compute, losses: [curves, points], points in order of compute.
        targets: [curves], losses.

    Returns:
        Logarithms of compute [curves], infinite where the target was not reached; and whether the first point was
        there already, so that the compute is an upper bound [curves].
    """
    there = losses <= targets[:, None]
    after = there.argmax(axis=1)
    before = np.maximum(after - 1, 0)
    at = _between(losses, log_compute, before, after, targets)
    return np.where(there.any(axis=1), at, np.inf), there[:, 0]


def _between(x: Array, y: Array, before: NDArray[np.intp], after: NDArray[np.intp], at: Array) -> Array:
    """y at x = `at`, on the line through two points of each curve; at the point where the two are one."""
    rows = np.arange(len(x))
    x0, x1, y0, y1 = x[rows, before], x[rows, after], y[rows, before], y[rows, after]
    width = x1 - x0
    fraction = np.divide(at - x0, width, out=np.ones_like(width), where=width != 0)
    return y0 + (y1 - y0) * fraction
