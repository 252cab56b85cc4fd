"""Sentences and short texts about family costs. The family cost of an arm is the total cost of its models of all
sizes."""

from collections.abc import Sequence
from math import isfinite
from typing import Literal, assert_never

from tfscale.analysis.curves import Measure
from tfscale.analysis.family import Bound, EqualFamily, FamilyComparison, FamilyCost
from tfscale.analysis.intervals import LEVEL
from tfscale.analysis.words import UNITS, amount
from tfscale.text import join

SIGNS: dict[Bound, str] = {"exact": "", "at least": ">= ", "at most": "<= "}
WORDS: dict[Bound, str] = {"exact": "", "at least": "at least ", "at most": "at most "}


def family_sentences(families: Sequence[FamilyComparison], price: float | None) -> tuple[str, ...]:
    """Return one sentence per arm, followed by an explanation of bounds if any cost is a bound. Each sentence compares
    the family costs of the chain and the arm, first at the chain's perplexities and then at the arm's perplexities.
    `price` is the price of a device in US dollars per hour, or None if it is unknown."""
    arms = dict.fromkeys(each.arm for each in families)
    sentences = [_of_arm([each for each in families if each.arm == arm], price) for arm in arms]
    exact = all(each.at_chain.exact and each.at_arm.exact for each in families)
    return (*sentences, *(() if exact else (BOUNDS,)))


BOUNDS = (
    "At most: some perplexities were reached during training, before the decay, so runs planned for them would have "
    "cost less. At least: some were not reached; sizes that were read during training then count as nothing."
)


def _of_arm(families: Sequence[FamilyComparison], price: float | None) -> str:
    shown = [each for each in families if each.measure != "flops_with_optimizer" or each is families[0]]
    at_chain = _outcomes({each.measure: each.at_chain for each in shown}, price)
    at_arm = _outcomes({each.measure: each.at_arm for each in shown}, price)
    sentence = (
        f"All sizes together, compared with {shown[0].title}: at the chain's perplexities, {at_chain}; "
        f"at the other arm's perplexities, {at_arm}"
    )
    for each in families:
        if each in shown:
            continue
        pairs = ((each.at_chain, shown[0].at_chain), (each.at_arm, shown[0].at_arm))
        same = all(one.verdict == other.verdict for one, other in pairs)
        changed = f"{family_clause(each.at_chain)}, and at the other arm's perplexities, {family_clause(each.at_arm)}"
        sentence += f"; with the optimizer's FLOPs included, {'the verdicts are the same' if same else changed}"
    return f"{sentence}."


def _outcomes(equals: dict[Measure, EqualFamily], price: float | None) -> str:
    """Return text with one clause per measure, such as `it saves 31.0% in FLOPs (1.20e12 against 1.74e12)`. If all
    verdicts are `open`, return a single clause."""
    costs = {measure: f"in {UNITS[measure]} ({_costs(equal, measure, price)})" for measure, equal in equals.items()}
    if all(equal.verdict == "open" for equal in equals.values()):
        return f"it is open which side is cheaper {join(list(costs.values()))}"
    return join([f"{family_clause(equal)} {costs[measure]}" for measure, equal in equals.items()])


def _costs(equal: EqualFamily, measure: Measure, price: float | None) -> str:
    sides = (equal.chain, equal.arm)
    costs = [" against ".join(f"{WORDS[value.bound]}{amount(value.shown, measure)}" for value in sides)]
    if price is not None and measure == "device_seconds":
        costs.append(" against ".join(f"{WORDS[value.bound]}{dollars(value, price)}" for value in sides))
    return "; ".join(costs)


def family_clause(equal: EqualFamily) -> str:
    """Return a clause such as `it saves at least 31.0%`, `it costs 12.0% more [8.1%, 16.2%]`, `there is no difference
    within noise` or `it is open which side is cheaper (the chain costs at most 43.6% less)`."""
    match equal.verdict:
        case "saves" | "costs more":
            return f"it {_change(equal, WORDS)}"
        case "no difference":
            return f"there is no difference within noise{_brackets(equal, -1)}"
        case "open":
            return f"it is open which side is cheaper{_limits(equal, WORDS, 'the chain costs ')}"
    assert_never(equal.verdict)


def cell(equal: EqualFamily) -> str:
    """Return the content of a table cell such as `better, saves >= 31.0%`, `level`, `worse, costs 12.0% more` or `open
    (<= 43.6% less)`."""
    match equal.verdict:
        case "saves":
            return f"better, {_change(equal, SIGNS)}"
        case "costs more":
            return f"worse, {_change(equal, SIGNS)}"
        case "no difference":
            return f"level{_brackets(equal, -1)}"
        case "open":
            return f"open{_limits(equal, SIGNS)}"
    assert_never(equal.verdict)


def cost(value: FamilyCost, measure: Measure) -> str:
    """Return a cost with its bound as text, such as `<= 3.56e12`."""
    return f"{SIGNS[value.bound]}{amount(value.shown, measure)}"


def dollars(value: FamilyCost, price: float) -> str:
    """Return a family cost in US dollars as text such as `$1.27` or `$0.0021`. `value` is the cost in device-seconds,
    and `price` is the price of a device in US dollars per hour."""
    spent = value.shown / 3600 * price
    return f"${spent:,.2f}" if spent >= 1 else f"${spent:#.2g}"


def _change(equal: EqualFamily, words: dict[Bound, str]) -> str:
    bound = "" if equal.exact else words["at least"]
    if equal.verdict == "saves":
        return f"saves {bound}{-equal.excess.high:.1%}{_brackets(equal, -1, words)}"
    return f"costs {bound}{equal.excess.low:.1%} more{_brackets(equal, 1, words)}"


def _limits(equal: EqualFamily, words: dict[Bound, str], before: str = "") -> str:
    """Return the known bounds of the chain's excess cost in an open comparison as text in parentheses, or an empty
    string if no bound is known."""
    low, high = equal.excess.low, equal.excess.high
    if low > -1 and isfinite(high):
        return f" ({before}{_relative(low)} to {_relative(high)})"
    if low > -1:
        return f" ({before}{words['at most' if low < 0 else 'at least']}{_relative(low)})"
    return f" ({before}{words['at least' if high < 0 else 'at most']}{_relative(high)})" if isfinite(high) else ""


def _relative(excess: float) -> str:
    return f"{abs(excess):.1%} {'less' if excess < 0 else 'more'}"


def _brackets(equal: EqualFamily, sign: Literal[1, -1], words: dict[Bound, str] = WORDS) -> str:
    """Return the confidence interval of the excess cost, or of the saving if `sign` is -1, as text. The text is, for
    example, ` [-9.1%, 2.4%]` or, if the costs are bounds, ` (with 95% confidence at least 8.1%)`. It is empty if there
    is nothing to add to the excess or saving."""
    if equal.interval is None:
        return ""
    low, high = sorted(sign * end for end in (equal.interval.low, equal.interval.high))
    if equal.exact and isfinite(low) and isfinite(high):
        return f" [{low:.1%}, {high:.1%}]" if low < high else ""
    shown = min(sign * equal.excess.low, sign * equal.excess.high)
    if not isfinite(low) or f"{low:.1%}" == f"{shown:.1%}":
        return ""
    end = f"{words['at least']}{low:.1%}"
    return f" (with {LEVEL:.0%} confidence {end})" if words is WORDS else f" [{end}]"
