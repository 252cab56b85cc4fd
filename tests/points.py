"""Functions that read one curve in perplexities, as the analysis reads stacks of curves in losses."""

from collections.abc import Sequence

import numpy as np

from tfscale.analysis.bootstrap import Curves
from tfscale.analysis.equal_cost import Reach

Points = Sequence[tuple[float, float]]
"""Pairs of compute and perplexity, in order of compute."""


def perplexity_at(points: Points, compute: float) -> float | None:
    """Return the perplexity at `compute`, or None outside the measured range."""
    loss = _curve(points).losses_at(np.log([compute]))[0]
    return None if np.isnan(loss) else float(np.exp(loss))


def first_reach(points: Points, target: float) -> tuple[Reach, float | None]:
    """Return the status of the perplexity `target` (`reached`, `at least` or `not reached`), and the compute at which
    the curve first reaches it."""
    (at,), (bound,) = _curve(points).first_reach(np.log([target]))
    return ("not reached", None) if np.isinf(at) else ("at least" if bound else "reached", float(np.exp(at)))


def _curve(points: Points) -> Curves:
    log_compute, losses = np.log(np.array(points).T)
    return Curves(log_compute[None], losses[None])
