"""Scaling laws of the final loss of a run, L = E + exp(b0 + b1 z1 + b2 z2 + ...), with bootstrap confidence intervals.

Each z is the logarithm of a variable of the run, such as compute, minus the mean of this logarithm over the measured
runs. With compute as the only variable, the law is L(C) = E + A C^-alpha (arXiv 2203.15556). With the tokens before and
after growth, and the product of their z, the law is L(D1, D2) = E + A D1^-a1 D2^-(a2 - a3 ln D1), the form of arXiv
2502.03009 for a model that starts from a trained model. The irreducible loss E may depend on a variable: E = E0 g^-e
for a growth factor g, because larger models have a lower irreducible loss.

A law is fitted to log L by least squares, and refitted to bootstrap samples. A bootstrap sample consists of the fitted
values of log L, plus residuals that are drawn with replacement and scaled to account for the degrees of freedom. If
some runs differ only in their seed, a random shift is also added for each seed.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tfscale.analysis.bootstrap import seeded
from tfscale.analysis.intervals import Array, Interval, interval_of

LEVEL: Final = 0.9
"""Confidence level of all intervals in advice."""
REFITS = 199
FAR = 10.0
"""Maximum factor by which values may be above the largest or below the smallest measured value for the form of a law to
be trusted."""
SPARE = 2
"""Number of degrees of freedom that a fit requires. The runs must have at least this many more different combinations
of values of the variables than the law has parameters."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Final results of the runs to which a scaling law is fitted."""

    names: tuple[str, ...]
    """Names of the variables."""
    values: Array
    """Values of the variables [runs, variables]."""
    losses: Array
    """Validation losses [runs] in nats per token."""
    seeds: tuple[int, ...]
    """Seed of each run."""
    has_product_term: bool = False
    """True if the product of the z of the first two variables is a term of the law."""
    floor_of: int | None = None
    """Index of the variable on which the irreducible loss depends, or None if the irreducible loss is constant. A
    variable with the same value in all runs has no effect."""

    @property
    def floor_parameters(self) -> int:
        """Number of parameters of the irreducible loss."""
        return 1 + bool(self.floor_of is not None and self.varied[self.floor_of])

    @property
    def varied(self) -> NDArray[np.bool_]:
        """Mask [variables] of the variables that are terms of the law: the first two variables, and all other variables
        that have several values among the runs."""
        several = np.array([len(np.unique(column)) > 1 for column in self.values.T])
        return several | (np.arange(len(several)) < 2)

    @property
    def parameters(self) -> int:
        """Number of parameters of the law."""
        return int(1 + self.floor_parameters + self.varied.sum() + self.has_product_term)

    @property
    def different(self) -> int:
        """Number of different combinations of values of the variables among the runs."""
        return len(np.unique(self.values, axis=0))

    @property
    def needed(self) -> int:
        """Minimum value of `different` that a fit requires."""
        return self.parameters + SPARE

    def stream(self, name: str) -> np.random.Generator:
        """Return a random generator for the bootstrap samples of the quantity `name`. Its seed depends only on this
        name and on the runs."""
        return seeded(name, *self.names, f"{self.losses.sum():.9f}")

    @property
    def suffices(self) -> bool:
        """True if the runs suffice for a fit: the first two variables each have at least 3 different values, and there
        are at least `needed` different combinations of values."""
        if not len(self.losses):
            return False
        levels = [len(np.unique(column)) for column in self.values.T[:2]]
        return self.different >= self.needed and min(levels) >= 3


@dataclass(frozen=True, eq=False)
class Law:
    """Law fitted to the final losses of runs, with refits to bootstrap samples, from which confidence intervals are
    computed."""

    measured: Measured
    parameters: Array
    """Fitted parameters of the law [parameters]: log E at z = 0, the slope of log E over z if E depends on a variable,
    and b0, b1, ..."""
    refits: Array
    """Parameters of each refit [refits, parameters]."""
    scatter: Array
    """Residuals of log L [runs], scaled to account for the degrees of freedom."""
    seed_noise: float
    """Standard deviation of the final loss between seeds as a fraction of the loss, after the variance of the residuals
    has been subtracted. It is 0 if no runs differ only in their seed."""

    @property
    def irreducible(self) -> float:
        """Irreducible loss E in nats per token. If E depends on a variable, this is the value of E at the geometric
        mean of the variable over the runs."""
        return float(np.exp(self.parameters[0]))

    @property
    def noise(self) -> float:
        """Standard deviation of the final losses of runs around the law, as a fraction of the loss."""
        return float(np.sqrt(np.mean(self.scatter**2)))

    def loss(self, values: Array) -> Array:
        """Return the loss [points] at values of the variables [points, variables], in nats per token."""
        return np.asarray(self._losses(self.parameters[None], values)[0])

    def draws(self, values: Array) -> Array:
        """Return the loss of each refit [refits] at values of the variables [variables].

        If the values are more than `FAR` times outside the measured runs, one third of the refits are replaced by a law
        without irreducible loss, and another third predict no improvement beyond the measured runs.
        """
        parameters, stopped = self._variants(self.beyond(values) > FAR)
        inside = np.clip(values, *self._range)
        at, at_edge = (self._losses(parameters, place[None])[:, 0] for place in (values, inside))
        return np.where(stopped, at_edge, at)

    def run_draws(self, losses: Array) -> Array:
        """Return `losses` [refits] with added random scatter, as expected for a single run with another seed."""
        stream, draws = self.measured.stream("run"), len(losses)
        factors = _student(stream, draws, len(self.scatter) - len(self.parameters))
        scatter = self.noise * factors * stream.standard_normal(draws)
        return losses * np.exp(scatter + _seed_shifts(self.measured, stream, self.seed_noise, draws, 1)[:, 0])

    def first_at(self, losses: Array) -> Array:
        """For a law with one variable, return the value of the variable at which each refit reaches its element of
        `losses` [refits], or infinity if the refit does not reach this loss. Refits are replaced as in `draws` if the
        median value is more than `FAR` times above the measured runs."""
        assert len(self.measured.names) == 1
        near = self._inverse(self.refits, losses)
        high = float(self.measured.values.max())
        parameters, stopped = self._variants(bool(np.median(near) > FAR * high))
        found = self._inverse(parameters, losses)
        return np.where(stopped & (found > high), np.inf, found)

    def beyond(self, values: Array) -> float:
        """Return the factor, at least 1, by which values of the variables [variables] are outside the measured runs."""
        low, high = self._range
        return float(max(1.0, (values / high).max(), (low / values).max()))

    def _inverse(self, parameters: Array, losses: Array) -> Array:
        log_e, level, slope = parameters.T
        reducible = losses - np.exp(log_e)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            found = np.exp((np.log(reducible) - level) / slope + np.log(self.measured.values).mean())
        return np.where((reducible > 0) & (slope < 0), found, np.inf)

    def _variants(self, extrapolates: bool) -> tuple[Array, NDArray[np.bool_]]:
        """Return the parameters of the refits [refits, parameters], and a mask [refits] of the refits that predict no
        improvement beyond the measured runs. If `extrapolates` is True, some refits are replaced by other forms of the
        law, as described in `draws`."""
        if not extrapolates:
            return self.refits, np.zeros(len(self.refits), dtype=bool)
        third = self.measured.stream("forms").permutation(np.arange(len(self.refits)) % 3)  # independent for each law
        terms = _terms_of(self.measured, self.measured.values)
        floorless = np.linalg.lstsq(terms.reducible, np.log(self.measured.losses), rcond=None)[0]
        parameters = self.refits.copy()
        parameters[third == 1] = [-np.inf, *[0.0] * (self.measured.floor_parameters - 1), *floorless]
        return parameters, third == 2

    @property
    def _range(self) -> tuple[Array, Array]:
        return self.measured.values.min(axis=0), self.measured.values.max(axis=0)

    def _losses(self, parameters: Array, values: Array) -> Array:
        """Return the loss [fits, points] at values [points, variables]. The loss is at most the loss with each
        variable clipped at its largest measured value, because the product term could otherwise increase the loss."""
        at, below = (
            _log_losses(parameters, _terms_of(self.measured, place))
            for place in (values, np.minimum(values, self._range[1]))
        )
        return np.exp(np.minimum(at, below))


def fit(measured: Measured, refits: int = REFITS) -> Law:
    """Return the law fitted to runs, which must suffice for a fit (`Measured.suffices`)."""
    terms, logs = _terms_of(measured, measured.values), np.log(measured.losses)
    starts = [_start(terms, measured.losses, share) for share in (0.3, 0.6, 0.8, 0.95)]
    tried = [_least_squares(terms, logs, start) for start in starts]
    best = min(tried, key=lambda each: float(((_log_losses(each[None], terms)[0] - logs) ** 2).sum()))
    fitted = _log_losses(best[None], terms)[0]
    free = len(logs) - len(best)
    scatter = (logs - fitted) * np.sqrt(len(logs) / free)
    stream, seed_noise = measured.stream("refits"), _seed_noise(measured, float(np.mean(scatter**2)))
    names = sorted(set(measured.seeds))
    shifts = _seed_shifts(measured, stream, seed_noise, refits, len(names))
    samples = fitted + _student(stream, refits, free)[:, None] * stream.choice(scatter, (refits, len(logs)))
    samples += shifts[:, [names.index(seed) for seed in measured.seeds]]
    found = [_least_squares(terms, sample, best) for sample in samples]
    return Law(measured, best, np.array(found), scatter, seed_noise)


def interval(draws: Array) -> Interval:
    """Return the central interval that contains the fraction `LEVEL` of the bootstrap samples `draws`. Samples may be
    infinite."""
    return interval_of(draws, LEVEL)


@dataclass(frozen=True, eq=False)
class _Terms:
    """Terms by which the parameters are multiplied to give the logarithms of the irreducible loss (`floor`) and of the
    reducible loss, at several points [points, parameters]."""

    floor: Array
    reducible: Array


def _terms_of(measured: Measured, values: Array) -> _Terms:
    """Return the terms 1, z1, z2, ... of the law at values of the variables [points, variables]."""
    z = np.log(values) - np.log(measured.values).mean(axis=0)
    ones = np.ones(len(z))
    floor = [z[:, measured.floor_of]] if measured.floor_parameters > 1 else []
    product = [z[:, 0] * z[:, 1]] if measured.has_product_term else []
    return _Terms(np.stack([ones, *floor], axis=1), np.stack([ones, *z[:, measured.varied].T, *product], axis=1))


def _start(terms: _Terms, losses: Array, share: float) -> Array:
    """Return initial parameters of a fit, in which E is the fraction `share` of the lowest measured loss."""
    irreducible = share * losses.min()
    slopes = np.linalg.lstsq(terms.reducible, np.log(losses - irreducible), rcond=None)[0]
    return np.array([np.log(irreducible), *[0.0] * (terms.floor.shape[1] - 1), *slopes])


def _least_squares(terms: _Terms, logs: Array, start: Array) -> Array:
    from scipy.optimize import least_squares

    def residuals(parameters: Array) -> Array:
        return np.asarray(_log_losses(parameters[None], terms)[0] - logs)

    def slopes(parameters: Array) -> Array:
        log_reducible = terms.reducible @ parameters[terms.floor.shape[1] :]
        reducible = np.exp(log_reducible - _log_losses(parameters[None], terms)[0])[:, None]
        return np.hstack([(1 - reducible) * terms.floor, reducible * terms.reducible])

    found: Array = least_squares(residuals, start, slopes, method="lm", max_nfev=200).x
    return found


def _log_losses(parameters: Array, terms: _Terms) -> Array:
    """Return the logarithm of the loss [fits, points] for parameters [fits, parameters]."""
    floors = terms.floor.shape[1]
    floor = parameters[:, :1] + parameters[:, 1:floors] @ terms.floor[:, 1:].T
    return np.asarray(np.logaddexp(floor, parameters[:, floors:] @ terms.reducible.T), dtype=float)


def _student(stream: np.random.Generator, draws: int, freedom: int) -> Array:
    """Return random factors [draws]. A standard normal random number times such a factor follows Student's t
    distribution with `freedom` degrees of freedom."""
    return np.sqrt(freedom / stream.chisquare(freedom, draws))


def _seed_noise(measured: Measured, of_points: float) -> float:
    """Return the standard deviation of log L between runs that differ only in their seed, after subtraction of the
    variance of the residuals, `of_points`. Return 0 if there are no such runs."""
    cell = np.unique(measured.values, axis=0, return_inverse=True)[1].ravel()  # numpy 2.0 returns a column
    groups = [np.log(measured.losses[cell == each]) for each in range(cell.max() + 1)]
    free = sum(len(group) - 1 for group in groups)
    if not free or len(set(measured.seeds)) < 2:
        return 0.0
    variance = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / free
    return float(np.sqrt(max(0.0, variance - of_points)))


def _seed_shifts(measured: Measured, stream: np.random.Generator, noise: float, draws: int, seeds: int) -> Array:
    """Return random shifts of log L [draws, seeds]. They are normal with standard deviation `noise`, times a factor per
    draw (`_student`) that accounts for the uncertainty of `noise`, which is estimated from few seeds."""
    if not noise:
        return np.zeros((draws, seeds))
    freedom = len(set(measured.seeds)) - 1
    return np.asarray(_student(stream, draws, freedom)[:, None] * noise * stream.standard_normal((draws, seeds)))
