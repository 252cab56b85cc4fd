"""Advice on whether to grow, from which size and with which budgets, and on the expected saving."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tfscale.advise.law import FAR, Law, interval
from tfscale.advise.laws import TITLES, Laws, fit_laws
from tfscale.advise.observed import Observed, observe
from tfscale.advise.question import Family, Question
from tfscale.advise.runs import Run, growth_factor
from tfscale.analysis.intervals import Array
from tfscale.config.schedule import StagePart

Decision = Literal["grow", "from scratch", "no difference"]
SHARES = np.concatenate([np.geomspace(0.005, 0.3, 60), np.linspace(0.31, 0.98, 68)])
"""Shares of the budget that are tried for the base."""
ROUNDING = 1.01
"""Maximum factor by which the growth factor of a target may be outside the range of the measured growth factors."""
NEAR = 2.0
"""Maximum factor by which budgets may be outside the measured runs. Budgets further outside are considered only if
there are no others."""


@dataclass(frozen=True, eq=False)
class Option:
    """One way to spend the whole budget: training all targets from scratch, or growing them from one base."""

    title: str
    base: str | None
    """Size from which the targets grow, or None if they are trained from scratch."""
    base_tokens: float
    tokens: tuple[float, ...]
    """Number of training tokens at the size of each target."""
    flops: float
    """Model FLOPs of training the base and all targets."""
    draws: Array
    """Final loss of each target in nats per token, as predicted by each refit of its law [refits, targets]."""
    runs: Array
    """`draws` with added random scatter, as expected for a single run [refits, targets]."""
    beyond: float
    """Largest factor by which the budgets of this option are outside the measured runs."""

    @property
    def loss(self) -> float:
        """Mean loss over the targets in nats per token, as the median over the refits."""
        return float(np.median(self.draws.mean(axis=1)))


@dataclass(frozen=True, eq=False)
class Advice:
    """Comparison of growth with training from scratch."""

    decision: Decision
    scratch: Option
    """Option from scratch with the lowest loss."""
    grown: Option
    """Option by growth with the lowest loss."""
    options: tuple[Option, ...]
    """All compared options, in increasing order of their loss."""
    difference: Array
    """Loss of the best option from scratch minus loss of the best option by growth, averaged over the targets, for each
    refit [refits] in nats per token. Both are losses of single runs, so the difference includes errors due to the form
    of the laws and the noise between seeds."""
    saving: Array
    """Fraction of the cost of training from scratch that growth saves, at the loss that the grown models are expected
    to reach [refits]. It is negative if growth costs more, and 1 if training from scratch is not expected to reach this
    loss."""
    beyond: float
    """Largest factor by which the budgets of the two best options are outside the measured runs."""

    @property
    def extrapolates(self) -> bool:
        """True if the answer is so far outside the measured runs that the form of the laws is not trusted."""
        return self.beyond > FAR


@dataclass(frozen=True, eq=False)
class Answer:
    """Answer to a `Question`: the laws, measurements that do not need a law, and the advice."""

    laws: Laws
    observed: tuple[Observed, ...]
    advice: Advice | None
    """Advice, or None if there are not enough runs to fit the laws, or no runs with the growth factors of the
    targets."""


def answer_to(question: Question, runs: Sequence[Run]) -> Answer:
    """Return the answer to a question from the measured runs."""
    laws = fit_laws(question, runs)
    scratch = {family: _from_scratch(question, family, fitted) for family, fitted in laws.scratch.items()}
    bases = [base for base in question.bases if base.size in laws.growth]
    grown = [_by_growth(question, base, laws.growth[base.size]) for base in bases]
    measured = [option for option in grown if option is not None]
    advice = _compare(question, laws, scratch, measured) if scratch and measured else None
    return Answer(laws, observe(question, runs, laws), advice)


def _compare(question: Question, laws: Laws, scratch: Mapping[Family, Option], grown: Sequence[Option]) -> Advice:
    family, best_scratch = min(scratch.items(), key=lambda item: item[1].loss)
    best_grown = min(grown, key=lambda option: option.loss)
    difference = best_scratch.runs.mean(axis=1) - best_grown.runs.mean(axis=1)
    sure = interval(difference)
    decision: Decision = "grow" if sure.low > 0 else "from scratch" if sure.high < 0 else "no difference"
    cost = np.zeros(len(difference))
    for place, (target, law) in enumerate(zip(question.targets, laws.scratch[family], strict=True)):
        price = question.price(question.recipe.scratch(target, family))
        cost += law.first_at(best_grown.draws[:, place]) / price.flops * price.amount
    return Advice(
        decision,
        best_scratch,
        best_grown,
        tuple(sorted([*scratch.values(), *grown], key=lambda option: option.loss)),
        difference,
        1 - question.budget.amount / cost,
        max(best_scratch.beyond, best_grown.beyond),
    )


def _from_scratch(question: Question, family: Family, laws: Sequence[Law]) -> Option:
    """Return the option that trains every target from scratch, with an equal share of the budget and a separate law for
    each target."""
    prices = [question.price(question.recipe.scratch(target, family)) for target in question.targets]
    tokens = [question.budget.amount / len(prices) / price.amount for price in prices]
    flops = [count * price.flops for count, price in zip(tokens, prices, strict=True)]
    places = [np.array([each]) for each in flops]
    return _option(f"{TITLES[family]} from scratch", None, 0.0, tokens, sum(flops), laws, places)


def _by_growth(question: Question, base: StagePart, law: Law) -> Option | None:
    """Return the option that grows every target from one base, which is trained once, or None if the growth factor of a
    target was not measured. The share of the budget for the base is the one that gives the lowest mean loss over the
    targets.

    Only shares whose budgets are at most a factor `NEAR` outside the measured runs are considered. If there are no such
    shares, those nearest to the measured runs are considered.
    """
    recipe, targets = question.recipe, question.targets
    small = recipe.scratch(base)
    base_price, prices = question.price(small), [question.price(recipe.grown(base, target)) for target in targets]
    factors = [growth_factor(small.model, recipe.scratch(target).model) for target in targets]
    measured = law.measured.values[:, -1]
    if not all(measured.min() / ROUNDING <= factor <= measured.max() * ROUNDING for factor in factors):
        return None

    def places(share: float) -> list[Array]:
        """Return the values of the law's variables for each target, if the base has this share of the budget."""
        spent = share * question.budget.amount
        each = (question.budget.amount - spent) / len(factors)
        values = zip(prices, factors, strict=True)
        return [np.array((spent / base_price.amount, each / price.amount, factor)) for price, factor in values]

    tried = [places(share) for share in SHARES]
    outside = np.array([max(map(law.beyond, each)) for each in tried])
    losses = np.array([np.mean([law.loss(place[None])[0] for place in each]) for each in tried])
    best = tried[int(np.where(outside <= max(NEAR, outside.min()), losses, np.inf).argmin())]
    base_tokens, tokens = float(best[0][0]), [float(place[1]) for place in best]
    flops = [count * price.flops for count, price in zip(tokens, prices, strict=True)]
    total = base_tokens * base_price.flops + sum(flops)
    return _option(f"grow from {base.size}", base.size, base_tokens, tokens, total, [law] * len(best), best)


def _option(
    title: str,
    base: str | None,
    base_tokens: float,
    tokens: Sequence[float],
    flops: float,
    laws: Sequence[Law],
    places: Sequence[Array],
) -> Option:
    """Return an option whose losses are predicted by one law per target. `places` contains one array per target: the
    values of the law's variables."""
    draws = [law.draws(place) for law, place in zip(laws, places, strict=True)]
    runs = [law.run_draws(each) for law, each in zip(laws, draws, strict=True)]
    beyond = max(law.beyond(place) for law, place in zip(laws, places, strict=True))
    return Option(
        title, base, base_tokens, tuple(tokens), flops, np.stack(draws, axis=1), np.stack(runs, axis=1), beyond
    )
