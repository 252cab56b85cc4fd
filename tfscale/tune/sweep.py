"""Settings of a sweep over candidate values, and the choice of the best value."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from tfscale.ranges import Range

Position = Literal["interior", "lowest", "highest"]
"""Position of the best value in the range of a sweep. If the position is `lowest` or `highest`, there may be a better
value outside the range."""
DIGITS = 3
"""Number of significant digits of a candidate."""
CLOSEST = 1.01
"""Minimum ratio of neighbouring candidates, which ensures that they differ after rounding."""
FINE_STEP = math.sqrt(2)
"""Ratio of neighbouring learning rates after refinement."""


@dataclass(frozen=True)
class Sweep:
    """Settings of the sweeps over the learning rates and over optim.embedding_ratio."""

    factors: tuple[float, ...]
    """Candidate values as multiples of the current learning rate, in ascending order."""
    further: int
    """Maximum number of values that extend the range in each rung while the best value is at an edge."""
    seeds: int
    """Number of runs per candidate, each with a different seed. Candidates are compared by the mean loss."""
    rungs: int = 1
    """Number of rungs of successive halving; 1: every candidate is trained with all tokens."""
    reduction: int = 3
    """Factor by which the number of candidates falls and the number of tokens rises from each rung to the next."""
    refine: bool = False
    """True to also try the rates that differ from the best one by a factor of sqrt(2), with all tokens."""
    ratios: tuple[float, ...] = ()
    """Candidate values of optim.embedding_ratio in ascending order, or an empty tuple if optim.embedding_ratio is not
    tuned."""

    def fraction(self, rung: int) -> float:
        """Return the number of tokens in a rung, as a fraction of all tokens of a stage."""
        return float(self.reduction) ** (rung + 1 - self.rungs)

    def label(self, rung: int) -> str:
        """Return the fraction of tokens in a rung as text, such as 1/9."""
        return f"1/{round(1 / self.fraction(rung))}"

    def kept(self, candidates: int, rung: int) -> int:
        """Return the number of values with which the rung `rung` starts if the first rung starts with `candidates`
        values. The number is at least 1 in the last rung and at least 2 in any other rung."""
        least = 1 if rung == self.rungs - 1 else 2
        return max(least, int(candidates // float(self.reduction) ** rung))

    def trainings(self, candidates: int) -> float:
        """Return the cost of a sweep that begins with a number of candidates and does not extend its range, as a
        multiple of the cost of training one candidate with all tokens."""
        halving = sum(self.kept(candidates, rung) * self.fraction(rung) for rung in range(self.rungs))
        return halving + 2 * self.refine

    def grid(self, values: Sequence[float]) -> int:
        """Return the number of candidates in a full grid with the range of `values` and the resolution of this
        sweep."""
        fine = 1 + round(math.log(max(values) / min(values), FINE_STEP)) if self.refine else 0
        return max(len(values), fine)


@dataclass(frozen=True)
class Choice:
    """Chosen value of a sweep, with its loss and its position in the range."""

    value: float
    loss: float
    """Mean validation loss of the chosen value's runs in nats per token; inf if every candidate diverged."""
    place: Position


def numbers_of(option: str, text: str, most: float = math.inf) -> tuple[tuple[float, ...], list[str]]:
    """Parse the value of the command-line option `option`, which is a list of numbers separated by commas, such as
    `0.5,1,2`. Return the valid numbers in ascending order, and a message for each fault. A number is valid if it is
    above 0 and at most `most`."""
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
            faults.append(f"{option}: {each.strip()!r} must be a number above 0{bound}; try 0.5,1,2")
    numbers.sort()
    for lower, higher in pairwise(numbers):
        if higher < lower * CLOSEST:
            rule = "each must be at least 1% above the previous one"
            faults.append(f"{option}: {lower:g} and {higher:g} are too close; {rule}")
    if len(numbers) < 2 and not faults:
        faults.append(f"{option} {text}: must be at least two numbers; try 0.5,1,2")
    return tuple(numbers), faults


def sweep_faults(sweep: Sweep, most_seeds: int) -> list[str]:
    """Return a message for each integer setting of a sweep that is out of range. `most_seeds` is the maximum of
    `seeds`."""
    ranges = {
        "further": Range(0, 1000, such_as="3"),
        "seeds": Range(1, most_seeds, such_as="1"),
        "rungs": Range(1, 8, such_as="3"),
        "reduction": Range(2, 100, such_as="3"),
    }
    numbers = {name: getattr(sweep, name) for name in ranges}
    faults = {name: ranges[name].fault(number) for name, number in numbers.items()}
    return [f"--{name} {numbers[name]}: {fault}" for name, fault in faults.items() if fault]


def candidates(rate: float, factors: Sequence[float]) -> tuple[float, ...]:
    return tuple(rate if factor == 1 else rounded(rate * factor) for factor in sorted(factors))


def choose(losses: Mapping[float, float]) -> Choice:
    """Return the choice of the candidate value with the lowest loss. If several values have the lowest loss, the
    smallest of them is chosen."""
    values = sorted(losses)
    best = min(values, key=lambda value: (losses[value], value))
    place: Position = "lowest" if best == values[0] else "highest" if best == values[-1] else "interior"
    return Choice(best, losses[best], place)


def beyond(losses: Mapping[float, float], tried: Collection[float] = ()) -> float | None:
    """Return the value with which to extend a range whose best value is at an edge, or None if the best value is
    interior or the new value is out of bounds. The new value is the nearest value beyond the edge among `tried`, the
    values of earlier rungs. If there is no such value, the new value has the same ratio to the value at the edge as
    that value has to its neighbour."""
    best = choose(losses)
    if best.place == "interior":
        return None
    values = sorted({*losses, *tried}, reverse=best.place == "highest")
    edge = values.index(best.value)
    if edge > 0:
        return values[edge - 1]
    value = values[0] * (values[0] / values[1])
    return rounded(value) if is_rate(value) else None


def is_rate(rate: float) -> bool:
    """Return whether a learning rate is between 1e-30 and 1e30."""
    return 1e-30 < rate < 1e30


def rounded(rate: float) -> float:
    return float(f"{rate:.{DIGITS}g}")
