"""Measurements of growth that do not require a scaling law: compute multipliers and mixing times.

The compute multiplier at loss L is C_scratch(L) / C_grown(L), as in arXiv 2609.19107, where C is the compute at which
training from scratch or growth reaches L. Compute is interpolated between measured runs, linearly in the logarithms of
compute and loss, and never extrapolated.

The mixing time is the number of tokens after the growth until the loss equals that of a model of the same size from
scratch after the same total number of tokens (arXiv 2511.04981). It is defined for trunks, whose learning rate does not
decay.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfscale.advise.laws import Laws, grown_runs, scratch_runs
from tfscale.advise.question import Question
from tfscale.advise.runs import Run
from tfscale.analysis.intervals import Array


@dataclass(frozen=True)
class Multiplier:
    """Compute multiplier of growth at one loss."""

    loss: float
    """Validation loss in nats per token."""
    multiplier: float
    """Compute to reach this loss from scratch, divided by the compute to reach it by growth, including the base."""


@dataclass(frozen=True)
class Mixing:
    """Mixing time of a growth, which is the number of training tokens after the growth until the loss equals the loss
    of a model trained from scratch."""

    base_tokens: int
    """Number of training tokens of the base before the growth."""
    tokens: float | None
    """Mixing time in tokens after the growth, or None if the loss of the run from scratch was not reached within the
    measured runs."""
    measured: float
    """Largest number of tokens after the growth at which the grown run and the run from scratch can be compared."""


@dataclass(frozen=True)
class Observed:
    """Measurements of growth from a base to a target that do not require a scaling law."""

    base: str
    target: str
    multipliers: tuple[Multiplier, ...]
    """Compute multipliers relative to a TokenFormer trained from scratch."""
    mixing: tuple[Mixing, ...]


def observe(question: Question, runs: Sequence[Run], laws: Laws) -> tuple[Observed, ...]:
    """Return the measured compute multipliers and mixing times of each growth to a target. For mixing times, losses
    count as equal if they differ by at most `Law.noise`, the scatter of runs around the law of the target from scratch.
    If this law could not be fitted, no difference is allowed."""
    fitted = laws.scratch.get("tokenformer", [])
    found = []
    for place, target in enumerate(question.targets):
        within = fitted[place].noise if fitted else 0.0
        scratch, scratch_trunks = (
            scratch_runs(question.recipe, runs, target, "tokenformer", decayed) for decayed in (True, False)
        )
        for base in question.bases:
            model = question.recipe.grown(base, target).model
            grown, grown_trunks = (
                [run for run in grown_runs(question.recipe, runs, base, decayed) if run.model == model]
                for decayed in (True, False)
            )
            ratios = multipliers(_points(scratch), _points(grown)) if scratch and grown else ()
            times = mixing_times(scratch_trunks, grown_trunks, within)
            found += [Observed(base.size, target.size, ratios, times)] if ratios or times else []
    return tuple(found)


def _points(runs: Sequence[Run]) -> Array:
    return np.log([(run.flops, run.loss) for run in runs])


def multipliers(scratch: Array, grown: Array) -> tuple[Multiplier, ...]:
    """Return compute multipliers in decreasing order of the loss at which they are measured. The losses are those of
    the runs on the frontiers (`_frontier`) of the runs from scratch and of the grown runs, except losses that only one
    of the two frontiers reaches. `scratch` and `grown` contain a point (log compute, log loss) for each run [runs,
    2]."""
    fronts = [_frontier(points) for points in (scratch, grown)]
    low, high = max(front[-1, 1] for front in fronts), min(front[0, 1] for front in fronts)
    losses = np.unique(np.concatenate([front[:, 1] for front in fronts]))[::-1]
    common = losses[(losses >= low) & (losses <= high)]
    of_scratch, of_grown = (np.interp(common, front[::-1, 1], front[::-1, 0]) for front in fronts)
    ratios = np.exp(of_scratch - of_grown)
    return tuple(Multiplier(float(np.exp(at)), float(ratio)) for at, ratio in zip(common, ratios, strict=True))


def _frontier(points: Array) -> Array:
    """Return the points whose loss is lower than the losses of all other points with the same or less compute, in order
    of compute."""
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
    best = np.minimum.accumulate(ordered[:, 1])
    return np.asarray(ordered[np.concatenate([[True], ordered[1:, 1] < best[:-1]])])


def mixing_times(scratch: Sequence[Run], grown: Sequence[Run], within: float) -> tuple[Mixing, ...]:
    """Return the mixing times of growths to one size. Each grown trunk is compared with the longest trunk from scratch
    that has the same seed. Losses count as equal if they differ by at most the fraction `within`."""
    found = []
    for run in _longest(grown):
        assert run.origin is not None, "a grown run has an origin"
        alike = [each for each in _longest(scratch) if each.first.seed == run.first.seed]
        if alike:
            longest = max(alike, key=lambda each: each.tokens)
            found.append(mixing_time(_curve(run), _curve(longest), run.origin.tokens, within))
    return tuple(sorted(found, key=lambda each: each.base_tokens))


def mixing_time(grown: Array, scratch: Array, base_tokens: int, within: float) -> Mixing:
    """Return the mixing time of a growth.

    Args:
        grown: tokens since the growth and loss of each evaluation of the grown run [evaluations, 2].
        scratch: tokens and loss of each evaluation of the run from scratch [evaluations, 2].
        base_tokens: tokens before the growth.
        within: largest difference at which two losses count as equal, as a fraction of the loss from scratch.
    """
    both = grown[(grown[:, 0] + base_tokens >= scratch[0, 0]) & (grown[:, 0] + base_tokens <= scratch[-1, 0])]
    if not len(both):
        return Mixing(base_tokens, None, 0.0)
    total = np.log(both[:, 0] + base_tokens)
    excess = both[:, 1] - (1 + within) * np.interp(total, np.log(scratch[:, 0]), scratch[:, 1])
    last = float(both[-1, 0])
    if not (excess <= 0).any():
        return Mixing(base_tokens, None, last)
    after = int((excess <= 0).argmax())
    before = max(after - 1, 0)
    return Mixing(base_tokens, float(np.interp(0, -excess[[before, after]], both[[before, after], 0])), last)


def _longest(runs: Sequence[Run]) -> list[Run]:
    """Group the trunks by their first stage, and return the longest trunk of each group. Runs whose learning rate has
    decayed, or that grew from such a run, are not trunks."""
    trunks: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.tokens):
        if not run.decayed and (run.origin is None or not run.origin.decayed):
            trunks[run.stages[0].key] = run
    return list(trunks.values())


def _curve(run: Run) -> Array:
    return np.array([(each.tokens, each.loss) for each in run.curve.evaluations if each.tokens or run.origin])
