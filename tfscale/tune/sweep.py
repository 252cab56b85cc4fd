"""Settings of a tuning, and the candidates, their order and their neighbours, as functions of losses."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from tfscale.faults import Fault

Place = Literal["interior", "lowest", "highest"]
"""Place of the best value in the range: `interior` if both neighbours are worse; `lowest` or `highest` if it is at an
edge, so that a better value may be beyond it."""

DIGITS = 3
"""Number of significant digits of a candidate, so that it is short to write."""

CLOSEST = 1.01
"""Smallest ratio of neighbouring candidates, so that they still differ after rounding."""

MOST_RUNGS = 8
MOST_REDUCTION = 100
FINE_STEP = math.sqrt(2)
"""Ratio of neighbouring learning rates after refinement."""


@dataclass(frozen=True)
class Sweep:
    """Settings of the sweep over each learning rate and over the ratio of the embedding's rate."""

    factors: tuple[float, ...]
    """Multiples of the current rate, ascending."""
    further: int
    """Number of further values that may be tried in a rung while the best value is at its edge."""
    seeds: int
    """Number of runs per candidate, with different random seeds; their mean loss is compared."""
    rungs: int = 1
    """Number of rungs of successive halving; 1: every candidate is trained with all tokens."""
    reduction: int = 3
    """Factor between rungs: by as much the number of candidates falls and the number of tokens rises."""
    refine: bool = False
    """True to try the neighbours of the best learning rate at a distance of sqrt(2), with all tokens."""
    ratios: tuple[float, ...] = ()
    """Values of optim.embedding_ratio to try, ascending; empty: it is not tuned."""

    def fraction(self, rung: int) -> float:
        """Return the fraction of a stage's tokens in a rung; 1 in the last one."""
        return float(self.reduction) ** (rung + 1 - self.rungs)

    def label(self, rung: int) -> str:
        """Return the fraction of a stage's tokens in a rung as text, such as 1/9."""
        return f"1/{round(1 / self.fraction(rung))}"

    def kept(self, candidates: int, rung: int) -> int:
        """Return how many of a number of candidates reach a rung: two at least, except in the last one."""
        least = 1 if rung == self.rungs - 1 else 2
        return max(least, int(candidates // float(self.reduction) ** rung))

    def trainings(self, candidates: int) -> float:
        """Return the cost of a sweep without further values, in trainings of one candidate with all tokens."""
        halving = sum(self.kept(candidates, rung) * self.fraction(rung) for rung in range(self.rungs))
        return halving + 2 * self.refine

    def grid(self, values: Sequence[float]) -> int:
        """Return the number of values of a full grid with the range and the resolution of a sweep."""
        fine = 1 + round(math.log(max(values) / min(values), FINE_STEP)) if self.refine else 0
        return max(len(values), fine)


@dataclass(frozen=True)
class Choice:
    """The result of a sweep."""

    value: float
    loss: float
    """Mean validation loss of the chosen value's runs in nats per token; inf if every candidate diverged."""
    place: Place


def numbers_of(option: str, text: str, most: float = math.inf) -> tuple[tuple[float, ...], list[Fault]]:
    """Parse numbers such as `0.5,1,2`; return them in ascending order, with the faults."""
    numbers, faults = [], []
    for each in text.split(","):
        try:
            number = float(each)
        except ValueError:
            number = math.nan
        if 0 < number <= most and number < math.inf:
            numbers.append(number)
        else:
            bound = f" and at most {most:g}" if most < math.inf else ""
            faults.append(Fault(option, repr(each.strip()), f"must be numbers above 0{bound}", "0.5,1,2"))
    numbers.sort()
    for lower, higher in pairwise(numbers):
        if higher < lower * CLOSEST:
            rule = f"must each be at least 1% above the one before, unlike {lower:g} and {higher:g}"
            faults.append(Fault(option, text, rule))
    if len(numbers) < 2 and not faults:
        faults.append(Fault(option, text, "must be two numbers at least, or nothing is compared", "0.5,1,2"))
    return tuple(numbers), faults


def sweep_faults(sweep: Sweep, most_seeds: int) -> list[Fault]:
    """Return the faults in the numbers of a sweep."""
    bounds = {
        "further": (sweep.further, 0, 1000),
        "seeds": (sweep.seeds, 1, most_seeds),
        "rungs": (sweep.rungs, 1, MOST_RUNGS),
        "reduction": (sweep.reduction, 2, MOST_REDUCTION),
    }
    return [
        Fault(f"--{name}", str(number), f"must be from {least} to {most}")
        for name, (number, least, most) in bounds.items()
        if not least <= number <= most
    ]


def candidates(rate: float, factors: Sequence[float]) -> tuple[float, ...]:
    """Return the rates to try first, in ascending order."""
    return tuple(rate if factor == 1 else rounded(rate * factor) for factor in sorted(factors))


def choose(losses: Mapping[float, float]) -> Choice:
    """Return the value with the lowest loss; of values with equal losses, the lowest."""
    values = sorted(losses)
    best = min(values, key=lambda value: (losses[value], value))
    place: Place = "lowest" if best == values[0] else "highest" if best == values[-1] else "interior"
    return Choice(best, losses[best], place)


def beyond(losses: Mapping[float, float], tried: Collection[float] = ()) -> float | None:
    """Return the next value to try, or None if the best value is interior or the next would be out of bounds.

    If the best value is at an edge, the next one beyond it is the nearest of those that were tried with fewer tokens,
    or if there is none, one at the ratio of the last two values.
    """
    place = choose(losses).place
    if place == "interior":
        return None
    values = sorted({*losses, *tried}, reverse=place == "highest")
    edge = values.index(choose(losses).value)
    if edge > 0:
        return values[edge - 1]
    value = values[0] * (values[0] / values[1])
    return rounded(value) if is_rate(value) else None


def is_rate(rate: float) -> bool:
    """Return True if a number is plausible as a learning rate."""
    return 1e-30 < rate < 1e30


def rounded(rate: float) -> float:
    """Return a rate with few digits."""
    return float(f"{rate:.{DIGITS}g}")
