"""Mixing time of a growth, which is the number of tokens after the growth until the loss equals that of a model of the
same size from scratch after the same total number of tokens (arXiv 2511.04981). The mixing time is defined for trunks,
whose learning rate does not decay."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfscale.advise.runs import Run
from tfscale.analysis.intervals import Array


@dataclass(frozen=True)
class Mixing:
    """Mixing time of one growth."""

    base_tokens: int
    """Tokens before growth."""
    tokens: float | None
    """Tokens after growth until the loss from scratch is reached, or None if it was not reached within the measured
    runs."""
    measured: float
    """Tokens after growth up to which both the grown run and the run from scratch were measured."""


def mixing_times(scratch: Sequence[Run], grown: Sequence[Run], within: float) -> tuple[Mixing, ...]:
    """Return the mixing time of each growth to a size. A grown trunk is compared with the longest trunk from scratch of
    the same seed. Losses count as equal if they differ by at most `within` nats."""
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
        within: difference of losses in nats that counts as equal.
    """
    both = grown[(grown[:, 0] + base_tokens >= scratch[0, 0]) & (grown[:, 0] + base_tokens <= scratch[-1, 0])]
    if not len(both):
        return Mixing(base_tokens, None, 0.0)
    total = np.log(both[:, 0] + base_tokens)
    excess = both[:, 1] - np.interp(total, np.log(scratch[:, 0]), scratch[:, 1]) - within
    last = float(both[-1, 0])
    if not (excess <= 0).any():
        return Mixing(base_tokens, None, last)
    after = int((excess <= 0).argmax())
    before = max(after - 1, 0)
    return Mixing(base_tokens, float(np.interp(0, -excess[[before, after]], both[[before, after], 0])), last)


def _longest(runs: Sequence[Run]) -> list[Run]:
    """Return the trunk with the most tokens for each first stage. The learning rates of a trunk and of the run from
    which it grew have not decayed."""
    trunks: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.tokens):
        if not run.decayed and (run.origin is None or not run.origin.decayed):
            trunks[run.stages[0].key] = run
    return list(trunks.values())


def _curve(run: Run) -> Array:
    return np.array([(each.tokens, each.loss) for each in run.curve.evaluations if each.tokens or run.origin])
