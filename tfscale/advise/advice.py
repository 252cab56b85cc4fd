"""Advice on whether to grow, from which size and with which budgets, and on the expected saving."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tfscale.advise.law import FAR, interval
from tfscale.advise.laws import TITLES, Laws, Observed, fit_laws, observe
from tfscale.advise.options import Option, by_growth, from_scratch
from tfscale.advise.question import Question
from tfscale.advise.runs import Run
from tfscale.analysis.intervals import Array

Decision = Literal["grow", "from scratch", "no difference"]


@dataclass(frozen=True, eq=False)
class Advice:
    """Comparison of growth with training from scratch."""

    decision: Decision
    scratch: Option
    """Best option from scratch."""
    grown: Option
    """Best option by growth."""
    options: tuple[Option, ...]
    """All options, best first."""
    difference: Array
    """Loss of the best option from scratch minus loss of the best option by growth, averaged over the targets, for each
    refit [refits] in nats per token. Both losses are those of single runs, so errors of the form of the laws and the
    noise between seeds are in it."""
    saving: Array
    """Fraction of the cost from scratch that growth saves at the loss of the grown models [refits]. It is negative if
    growth costs more, and 1 if no run from scratch reaches this loss."""
    beyond: float
    """Largest factor by which the two best options are outside the measured runs."""

    @property
    def extrapolates(self) -> bool:
        """True if the answer is so far outside the measured runs that the form of the laws is not trusted."""
        return self.beyond > FAR


@dataclass(frozen=True, eq=False)
class Answer:
    """Answer to a question."""

    laws: Laws
    observed: tuple[Observed, ...]
    advice: Advice | None
    """Advice, or None if there are not enough runs."""


def answer_to(question: Question, runs: Sequence[Run]) -> Answer:
    """Return the answer to a question from the measured runs."""
    laws = fit_laws(question, runs)
    scratch, grown = _from_scratch(question, laws), _by_growth(question, laws)
    advice = _compare(question, laws, scratch, grown) if scratch and grown else None
    return Answer(laws, observe(question, runs, laws), advice)


def _from_scratch(question: Question, laws: Laws) -> list[Option]:
    options = []
    for family, fitted in laws.scratch.items():
        prices = [question.price(question.recipe.scratch(target, family)) for target in question.targets]
        options.append(from_scratch(question, f"{TITLES[family]} from scratch", fitted, prices))
    return options


def _by_growth(question: Question, laws: Laws) -> list[Option]:
    recipe, options = question.recipe, []
    for base in question.bases:
        if base.size not in laws.growth:
            continue
        prices = {target.size: question.price(recipe.grown(base, target)) for target in question.targets}
        price = question.price(recipe.scratch(base))
        options.append(by_growth(question, base, laws.growth[base.size], price, prices))
    return [option for option in options if option is not None]


def _compare(question: Question, laws: Laws, scratch: list[Option], grown: list[Option]) -> Advice:
    best_scratch, best_grown = (min(each, key=lambda option: option.loss) for each in (scratch, grown))
    difference = best_scratch.runs.mean(axis=1) - best_grown.runs.mean(axis=1)
    sure = interval(difference)
    decision: Decision = "grow" if sure.low > 0 else "from scratch" if sure.high < 0 else "no difference"
    family = list(laws.scratch)[scratch.index(best_scratch)]
    cost = np.zeros(len(difference))
    for place, (target, law) in enumerate(zip(question.targets, laws.scratch[family], strict=True)):
        price = question.price(question.recipe.scratch(target, family))
        cost += law.first_at(best_grown.draws[:, place]) / price.flops * price.amount
    return Advice(
        decision,
        best_scratch,
        best_grown,
        tuple(sorted([*scratch, *grown], key=lambda option: option.loss)),
        difference,
        1 - question.budget.amount / cost,
        max(best_scratch.beyond, best_grown.beyond),
    )
