"""Functions that read one curve in perplexities, as the analysis reads stacks of curves in losses."""

from collections.abc import Sequence

import numpy as np

from tfscale.analysis.equal_cost import Reach, first_reaches, losses_at

Points = Sequence[tuple[float, float]]
"""Pairs of compute and perplexity, in order of compute."""


def perplexity_at(points: Points, compute: float) -> float | None:
    """Return the perplexity at `compute`, or None outside the measured range."""
    log_compute, losses = np.log(np.array(points).T)
    loss = losses_at(log_compute[None], losses[None], np.log([compute]))[0]
    return None if np.isnan(loss) else float(np.exp(loss))


def first_reach(points: Points, target: float) -> tuple[Reach, float | None]:
    """Return the status of the perplexity `target` (`reached`, `at least` or `not reached`), and the compute at which
    the curve first reaches it."""
    log_compute, losses = np.log(np.array(points).T)
    (at,), (bound,) = first_reaches(log_compute[None], losses[None], np.log([target]))
    return ("not reached", None) if np.isinf(at) else ("at least" if bound else "reached", float(np.exp(at)))
