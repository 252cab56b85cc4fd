"""Ways to spend a budget on target sizes, from scratch or by growth, with the loss that the laws predict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfscale.advise.law import Law
from tfscale.advise.question import Price, Question
from tfscale.advise.runs import growth_factor
from tfscale.analysis.intervals import Array
from tfscale.config.schedule import StagePart

SHARES = np.concatenate([np.geomspace(0.005, 0.3, 60), np.linspace(0.31, 0.98, 68)])
"""Shares of the budget that are tried for the base."""
ROUNDING = 1.01
"""Factor by which a growth factor may be outside the range of the measured growth factors."""
NEAR = 2.0
"""Factor outside the measured runs up to which budgets are chosen freely."""


@dataclass(frozen=True, eq=False)
class Option:
    """One way to spend the whole budget."""

    title: str
    base: str | None
    """Size from which the targets grow, or None if they are trained from scratch."""
    base_tokens: float
    """Number of tokens of the base, or 0 without a base."""
    tokens: tuple[float, ...]
    """Number of tokens at the size of each target."""
    flops: float
    """Model FLOPs of the base and all targets."""
    draws: Array
    """Loss of each refit of the law for each target [refits, targets] in nats per token."""
    runs: Array
    """`draws` with added scatter of a single run about the law."""
    beyond: float
    """Largest factor by which the option is outside the measured runs."""

    @property
    def loss(self) -> float:
        """Median over the refits of the mean loss over the targets."""
        return float(np.median(self.draws.mean(axis=1)))


def from_scratch(question: Question, title: str, laws: Sequence[Law], prices: Sequence[Price]) -> Option:
    """Return the option that trains every target from scratch, with equal shares of the budget."""
    tokens = [question.share / price.amount for price in prices]
    flops = [count * price.flops for count, price in zip(tokens, prices, strict=True)]
    places = [np.array([each]) for each in flops]
    draws = [law.draws(place) for law, place in zip(laws, places, strict=True)]
    return Option(
        title,
        None,
        0.0,
        tuple(tokens),
        sum(flops),
        np.stack(draws, axis=1),
        np.stack([law.run_draws(each) for law, each in zip(laws, draws, strict=True)], axis=1),
        max(law.beyond(place) for law, place in zip(laws, places, strict=True)),
    )


def by_growth(
    question: Question, base: StagePart, law: Law, base_price: Price, prices: Mapping[str, Price]
) -> Option | None:
    """Return the option that grows every target from one base, which is trained once, or None if the growth factor of a
    target was not measured. The base has the share of the budget that gives the lowest mean loss.

    Only shares with budgets at most a factor `NEAR` outside the measured runs are considered or, if there are none,
    those nearest to the measured runs.
    """
    small = question.recipe.scratch(base).model
    factors = [growth_factor(small, question.recipe.scratch(target).model) for target in question.targets]
    measured = law.measured.values[:, -1]
    if not all(measured.min() / ROUNDING <= factor <= measured.max() * ROUNDING for factor in factors):
        return None

    def places(share: float) -> list[Array]:
        """Return the values of the law's variables for each target."""
        spent = share * question.budget.amount
        each = (question.budget.amount - spent) / len(factors)
        values = [
            (spent / base_price.amount, each / prices[target.size].amount, factor)
            for target, factor in zip(question.targets, factors, strict=True)
        ]
        return [np.array(value) for value in values]

    tried = [places(share) for share in SHARES]
    outside = np.array([max(map(law.beyond, each)) for each in tried])
    losses = np.array([np.mean([law.loss(place[None])[0] for place in each]) for each in tried])
    best = tried[int(np.where(outside <= max(NEAR, outside.min()), losses, np.inf).argmin())]
    draws = [law.draws(place) for place in best]
    tokens = tuple(float(place[1]) for place in best)
    flops = [count * prices[target.size].flops for count, target in zip(tokens, question.targets, strict=True)]
    return Option(
        f"grow from {base.size}",
        base.size,
        float(best[0][0]),
        tokens,
        float(best[0][0]) * base_price.flops + sum(flops),
        np.stack(draws, axis=1),
        np.stack([law.run_draws(each) for each in draws], axis=1),
        max(map(law.beyond, best)),
    )
