"""Scaling law L(C) = E + A C^-alpha of the loss L over compute C, fitted to the runs of an arm that trains from
scratch.

The form and the method are those of arXiv 2203.15556 (Chinchilla), with compute as the only variable: the sum of Huber
losses of the residuals of log L is minimised from several starting points, with E and A fitted as logarithms. The law
is fitted to the frontier of the arm. The frontier consists of the final evaluations of those runs, of any size, whose
loss is lower than the losses of all other runs with the same or less compute. Losses are first averaged over seeds, so
that the frontier does not select lucky seeds. Evaluations during training are not used, because they precede the decay
of the learning rate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tfscale.analysis.bootstrap import seeded
from tfscale.analysis.curves import ArmCurve, Measure
from tfscale.analysis.intervals import LEVEL, Array, Interval, interval_of
from tfscale.plan.arm_kind import arm_kind

DELTA = 1e-3
"""Threshold of the Huber loss, beyond which residuals of log L count linearly, as in arXiv 2203.15556."""
STEEPEST = 3.0
"""Maximum exponent alpha of a fitted scaling law."""
STEPS = 80
"""Number of steps of the minimisation for each fit of a scaling law."""
REFITS = 400
FEWEST_POINTS, LEAST_RANGE = 5, 3.0
"""Minimum number of points in a frontier, and minimum ratio of the largest to the smallest compute, for a fit."""
STARTS = [(e, a, alpha) for e in (0.3, 0.6, 0.9) for a in (-1.0, 0.5) for alpha in (0.1, 0.3, 0.6)]
"""Starting points of the fit: E as a fraction of the lowest loss, log A, and alpha."""


@dataclass(frozen=True, eq=False)
class Frontier:
    """Final evaluations of those runs of an arm whose loss is lower than the losses of all other runs with the same or
    less compute, in order of compute."""

    keys: tuple[str, ...]
    """Keys of the stages whose final evaluations are points of the frontier."""
    compute: Array
    """Cumulative compute [points]."""
    losses: Array
    """Validation losses [points] in nats per token, averaged over seeds."""
    runs: NDArray[np.intp]
    """Index of the size of each point [points]. The points of one size have the same index, because runs of one size at
    several budgets can be branches of the same run, and such branches deviate from the law together."""


@dataclass(frozen=True, eq=False)
class ScalingLaw:
    """Scaling law fitted to the frontier of an arm. Its uncertainty is estimated by refitting the law to the fitted
    losses plus residuals drawn with replacement."""

    arm: str
    frontier: Frontier
    irreducible: float
    """Irreducible loss E, in nats per token."""
    coefficient: float
    """Coefficient A, for compute in units of `unit`."""
    exponent: float
    """Exponent alpha."""
    unit: float
    """Geometric mean of the compute of the frontier, in the unit of the chosen cost measure."""
    refits: Array
    """Parameters log E, log A and alpha of each refit to a bootstrap sample [refits, 3]."""
    scatter: Array
    """Residuals of log L [points], scaled to account for the degrees of freedom of the three parameters."""

    @property
    def intervals(self) -> tuple[Interval, Interval]:
        """Bootstrap confidence intervals of E and alpha."""
        return interval_of(np.exp(self.refits[:, 0])), interval_of(self.refits[:, 2])

    def loss(self, compute: Array) -> Array:
        """Return the fitted loss at each amount of compute, in nats per token."""
        return self.irreducible + self.coefficient * (compute / self.unit) ** -self.exponent

    def band(self, compute: Array) -> tuple[Array, Array]:
        """Return the lower and upper limits, in nats per token, between which the law expects the fraction LEVEL of
        measured losses at each compute. The limits account for the uncertainty of the fit and for the scatter of the
        points."""
        x = np.log(compute / self.unit)
        scatter = seeded("scatter", self.arm).choice(self.scatter, (len(self.refits), 1))
        losses = np.exp(_log_losses(self.refits, x) + scatter)
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(losses, [tail, 1 - tail], axis=0)
        return low, high


def frontier(arm: ArmCurve, measure: Measure) -> Frontier:
    """Return the frontier of an arm over its runs of all sizes and budgets."""
    kept: list[tuple[float, float, int, tuple[str, ...]]] = []
    for end in sorted(end for number, size in enumerate(arm.sizes) for end in _ends(arm, size, number, measure)):
        if end[0] > 0 and (not kept or end[1] < kept[-1][1]):
            kept.append(end)
    return Frontier(
        keys=tuple(dict.fromkeys(key for *_, keys in kept for key in keys)),
        compute=np.array([compute for compute, *_ in kept], dtype=float),
        losses=np.array([loss for _, loss, *_ in kept], dtype=float),
        runs=np.array([number for *_, number, _ in kept], dtype=np.intp),
    )


def _ends(
    arm: ArmCurve, size: str, number: int, measure: Measure
) -> Iterator[tuple[float, float, int, tuple[str, ...]]]:
    """Yield a tuple (compute, loss, `number`, stage keys) for each budget at which an arm's runs of one size have
    finished for every seed. Compute and loss are those of the final evaluations, averaged over seeds. `number` is the
    index of the size."""
    runs = arm.replicates(size)
    budgets = [run.readings for run in runs] if all(run.readings for run in runs) else [(run,) for run in runs]
    for replicates in zip(*budgets, strict=False):
        ends = [run.end for run in replicates if run.end]
        if len(ends) == len(runs):
            points = [(end.totals.of(measure), end.loss) for end in ends]
            compute, loss = (float(np.mean(values)) for values in zip(*points, strict=True))
            yield compute, loss, number, tuple(run.key for run in replicates)


def fit_law(name: str, points: Frontier) -> ScalingLaw | None:
    """Return the scaling law fitted to a frontier, or None if the frontier has too few points or covers too small a
    range of compute to distinguish a curve from a line."""
    compute, losses = points.compute, points.losses
    if len(compute) < FEWEST_POINTS or compute[-1] / compute[0] < LEAST_RANGE:
        return None
    unit = float(np.exp(np.log(compute).mean()))
    x, y = np.log(compute / unit), np.log(losses)
    starts = np.array([(np.log(e * losses.min()), a, alpha) for e, a, alpha in STARTS])
    fits, values = _minimise(x, np.tile(y, (len(starts), 1)), starts)
    best = fits[values.argmin()]
    fitted = _log_losses(best[None], x)
    scatter = (y - fitted)[0] * np.sqrt(len(x) / (len(x) - 3))
    again = fitted + _resampled(scatter, points.runs, seeded("scaling law", name))
    refits, _ = _minimise(x, again, np.tile(best, (REFITS, 1)))
    e, a, alpha = best
    return ScalingLaw(name, points, float(np.exp(e)), float(np.exp(a)), float(alpha), unit, refits, scatter)


def _resampled(residuals: Array, runs: NDArray[np.intp], stream: np.random.Generator) -> Array:
    """Return bootstrap samples of the residuals [REFITS, points]. Each residual is the sum of the mean residual of a
    size and the deviation of a point from the mean residual of its size, both drawn with replacement. In each sample,
    all points of a size have the same mean residual. If any size has several points, the means are scaled up, because a
    fit of three parameters makes the means of few sizes too small. `runs` contains the index of each point's size."""
    _, place, sizes = np.unique(runs, return_inverse=True, return_counts=True)
    means = np.bincount(place, residuals) / sizes
    deviations = residuals - means[place]
    several = np.sqrt(len(sizes) / max(1, len(sizes) - 3)) if len(sizes) < len(runs) else 1.0
    drawn = stream.choice(several * means, (REFITS, len(sizes)))[:, place]
    return np.asarray(drawn + stream.choice(deviations, (REFITS, len(runs))), dtype=float)


def scaling_laws(arms: Sequence[ArmCurve], measure: Measure) -> tuple[ScalingLaw, ...]:
    """Return the scaling laws of those arms from scratch whose frontier suffices for a fit (`fit_law`)."""
    laws = [fit_law(arm.name, frontier(arm, measure)) for arm in arms if arm_kind(arm.kind).from_scratch]
    return tuple(law for law in laws if law is not None)


def _minimise(x: Array, y: Array, start: Array) -> tuple[Array, Array]:
    """Minimise the sums of the Huber losses of y - log L(x) for several fits at once by the Levenberg-Marquardt method
    with iteratively reweighted least squares.

    Args:
        x: logarithm of compute [points].
        y: logarithm of loss [fits, points].
        start: initial log E, log A and alpha [fits, 3].

    Returns:
        Parameters [fits, 3] and summed Huber losses [fits] at the minima.
    """
    found, damping = start.copy(), np.full(len(start), 1e-3)
    value = _huber(y - _log_losses(found, x))
    for _ in range(STEPS):
        total = _log_losses(found, x)
        residual = y - total
        weight = np.minimum(1.0, DELTA / np.maximum(np.abs(residual), 1e-300))
        share = np.exp(found[:, 1, None] - found[:, 2, None] * x - total)  # the reducible share of the loss
        slope = np.stack([1 - share, share, -share * x], axis=-1)
        square = np.einsum("fp,fpi,fpj->fij", weight, slope, slope)
        scale = np.einsum("fii->fi", square) + 1e-12
        square += (damping[:, None] * scale)[:, :, None] * np.eye(3)
        downhill = np.einsum("fp,fpi->fi", weight * residual, slope)
        tried = found + np.clip(np.linalg.solve(square, downhill[..., None])[..., 0], -1.0, 1.0)
        tried[:, 2] = np.clip(tried[:, 2], 0.0, STEEPEST)
        reached = _huber(y - _log_losses(tried, x))
        better = reached < value
        found[better], value[better] = tried[better], reached[better]
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-12, 1e12)
    return found, value


def _log_losses(parameters: Array, x: Array) -> Array:
    """Return the logarithm of the loss [fits, points] for parameters [fits, 3] and logarithms of compute x [points]."""
    e, a, alpha = (parameters[:, index, None] for index in range(3))
    return np.asarray(np.logaddexp(e, a - alpha * x), dtype=float)


def _huber(residual: Array) -> Array:
    """Return the sums over points of the Huber losses [fits] of residuals [fits, points]."""
    clipped = np.clip(residual, -DELTA, DELTA)
    return np.asarray((clipped * (residual - clipped / 2)).sum(axis=1), dtype=float)
