"""Text of the advice, as sentences."""

import numpy as np

from tfscale.advise.advice import Advice, Answer, Option
from tfscale.advise.law import FAR, LEVEL, REFITS, Law, interval
from tfscale.advise.laws import Laws, named_laws
from tfscale.advise.question import Question, Unit
from tfscale.advise.runs import Found
from tfscale.analysis.intervals import Array
from tfscale.text import count, join, scientific

ROUNDED = 1.05
"""Budgets that are outside the range of the measured runs by less than this factor are described as inside."""


def amount(value: float, unit: Unit) -> str:
    """Return an amount in the unit of a budget as text."""
    if unit == "FLOPs":
        return f"{scientific(value)} FLOPs"
    return f"${value:,.2f}" if unit == "dollars" else f"{value:,.3g} device-hours"


def recommendation(question: Question, advice: Advice) -> str:
    """Return a sentence that states the decision and the token budgets of the recommended option."""
    best = advice.grown if advice.decision == "grow" else advice.scratch
    plan = _budgets(question, best)
    if advice.decision == "grow":
        return f"Grow from {best.base}: {plan}."
    if advice.decision == "from scratch":
        return f"Do not grow: train a {best.title}: {plan}."
    other = f"growth from {advice.grown.base} ({_budgets(question, advice.grown)})"
    return f"No difference beyond the uncertainty between a {best.title} ({plan}) and {other}."


def _budgets(question: Question, option: Option) -> str:
    targets = [
        f"{count(tokens)} tokens of {target.size}"
        for target, tokens in zip(question.targets, option.tokens, strict=True)
    ]
    return (
        f"{count(option.base_tokens)} tokens of {option.base}, then {join(targets)}" if option.base else join(targets)
    )


def difference(question: Question, advice: Advice) -> str:
    """Return sentences that state the expected difference in loss between growth and training from scratch, and the
    saving that is expected from growth."""
    middle, saved = float(np.median(advice.difference)), float(np.median(advice.saving))
    below = "below" if middle > 0 else "above"
    draws = advice.difference if middle > 0 else -advice.difference
    nats = f"{_spread(draws, '{:.3f}')} nats {below} a {advice.scratch.title}"
    ends = f"With the same {question.budget.unit}, one run by growth is expected to end {nats}."
    return f"{ends} {_saving(question, advice, saved)}"


def _saving(question: Question, advice: Advice, saved: float) -> str:
    unit = question.budget.unit
    if saved == 1:
        return "Training from scratch is not expected to reach this loss at any cost."
    if saved >= 0:
        spread = _spread(advice.saving, "{:.0%}")
        return f"This run needs {spread} fewer {unit} than training from scratch to this loss."
    with np.errstate(divide="ignore"):
        costs = 1 / (1 - advice.saving)  # infinite in samples that never reach the loss from scratch
    return f"Training from scratch to this loss needs {_spread(costs, '{:.0%}')} of the {unit}."


def _spread(draws: Array, form: str) -> str:
    """Return the median and the confidence interval of bootstrap samples as text, such as `0.5 [0.4, 0.6]`."""
    bounds = interval(draws)
    low, middle, high = (
        form.format(value) if np.isfinite(value) else "no limit"
        for value in (bounds.low, np.median(draws), bounds.high)
    )
    return f"{middle} [{low}, {high}]"


def outside(beyond: float) -> str:
    """Return text such as `inside` or `3 times outside`, which states how far budgets are outside the measured runs."""
    return "inside" if beyond < ROUNDED else f"{count(beyond)} times outside"


def warning(advice: Advice) -> str:
    """Return the warning about an answer that is far outside the measured runs."""
    return (
        f"warning: this is {count(advice.beyond)} times outside the measured runs. Beyond {FAR:g} times, the form of "
        "the laws is not trusted: the intervals also cover laws without an irreducible loss, and no improvement at all "
        "beyond the measured runs. Measure at larger budgets before you rely on this answer."
    )


def lacking(laws: Laws) -> list[str]:
    """Return phrases that state why there is no advice yet: the laws that cannot be fitted, each with the numbers of
    budgets that it needs and has, or growth factors that were not measured."""
    found = [
        f"the law of {lack.law} needs runs of this recipe at {lack.needed} budgets, and has {lack.budgets or 'none'}"
        for lack in laws.lacking
    ]
    if laws.scratch and laws.growth:
        found.append("the growth factors of the targets were not measured")
    return found


def basis(question: Question, found: Found, answered: Answer) -> list[str]:
    """Return phrases that state the runs and assumptions on which the answer is based, how far the answer extrapolates,
    and related measurements."""
    laws, advice = answered.laws, answered.advice
    fitted = named_laws(question, laws)
    lines = [f"{name}: {_quality(law)}" for name, law in fitted.items()]
    if advice:
        lines.append(f"the budgets of the compared options are {outside(advice.beyond)} the measured runs")
        several = any(len(set(law.measured.seeds)) > 1 for law in fitted.values())
        seeds = "" if several else ", and exclude the variation over seeds, because there is one seed"
        lines.append(f"intervals have a confidence of {LEVEL:.0%}, from {REFITS} refits to resampled runs{seeds}")
    lines.append("runs have the recipe, learning rates and data of these settings; rates are not tuned for each budget")
    if len(question.targets) > 1:
        lines.append("targets have equal shares of the budget, and share one base")
    if laws.lacking:
        lines.append(f"not considered, because there are too few runs: {join([lack.law for lack in laws.lacking])}")
    for each in answered.observed:
        if each.multipliers:
            last = each.multipliers[-1]
            measured = f"{last.multiplier:.2f} at a loss of {last.loss:.3f}, the lowest that both reached"
            lines.append(f"measured compute multiplier of growth from {each.base} to {each.target}: {measured}")
        times = [
            f"{count(mixing.tokens)} tokens after {count(mixing.base_tokens)} tokens of the base"
            for mixing in each.mixing
            if mixing.tokens
        ]
        if times:
            lines.append(f"measured mixing time of growth from {each.base} to {each.target}: {join(times)}")
    return [*lines, *unused(found)]


def unused(found: Found) -> list[str]:
    """Return a list with a phrase about the finished stages that are not used, or an empty list if all are used."""
    number = len(found.unused)
    names = ", ".join(found.unused[:2]) + (", ..." if number > 2 else "")
    return [f"finished stages that diverged or cannot be read are not used: {number} ({names})"] if number else []


def _quality(law: Law) -> str:
    measured = law.measured
    ranges = [
        _range(name, *np.unique(column)[[0, -1]])
        for name, column in zip(measured.names, measured.values.T, strict=True)
    ]
    return f"{len(measured.losses)} runs, {join(ranges)}; runs scatter by {law.noise:.2%} of the loss"


def _range(name: str, low: float, high: float) -> str:
    form = scientific if name == "compute" else count
    return f"{name} {form(low)}" + (f" to {form(high)}" if high > low else "")
