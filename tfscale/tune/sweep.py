"""Choice of a learning rate by a sweep: the rates to try, the best one, and its place in the range."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Place = Literal["interior", "lowest", "highest"]
"""Place of the best rate in the range: `interior` if both neighbours are worse; `lowest` or `highest` if it is at an
edge, so that a better rate may be beyond it."""

DIGITS = 3
"""Number of significant digits of a candidate rate, so that it is short to write."""

CLOSEST = 1.01
"""Smallest ratio of neighbouring rates, so that they still differ after rounding."""


@dataclass(frozen=True)
class Sweep:
    """Settings of the sweep over each learning rate."""

    factors: tuple[float, ...]
    """Multiples of the current rate, ascending."""
    further: int
    """Number of further rates that may be tried beyond the range while the best rate is at its edge."""
    seeds: int
    """Number of runs per candidate, with different random seeds; their mean loss is compared."""


@dataclass(frozen=True)
class Choice:
    """The result of a sweep."""

    rate: float
    loss: float
    """Mean validation loss of the chosen rate's runs in nats per token; inf if every candidate diverged."""
    place: Place


def factors_of(text: str) -> tuple[tuple[float, ...], list[str]]:
    """Parse factors such as `0.5,1,2`; return them in ascending order, with the faults."""
    factors, faults = [], []
    for each in text.split(","):
        try:
            factor = float(each)
        except ValueError:
            factor = math.nan
        if 0 < factor < math.inf:
            factors.append(factor)
        else:
            faults.append(f"--factors: {each.strip()!r} is no factor of a learning rate; numbers above 0: 0.5,1,2")
    factors.sort()
    for lower, higher in pairwise(factors):
        if higher < lower * CLOSEST:
            faults.append(f"--factors: {lower:g} and {higher:g} are one; each at least 1% above the one before")
    if len(factors) < 2 and not faults:
        faults.append(f"--factors {text}: there is one; two at least, or nothing is compared")
    return tuple(factors), faults


def sweep_faults(sweep: Sweep, most_seeds: int) -> list[str]:
    """Return the faults in the numbers of runs of a sweep."""
    faults = []
    if sweep.further < 0:
        faults.append(f"--further {sweep.further}: rates beyond the range, at least 0")
    if not 1 <= sweep.seeds <= most_seeds:
        faults.append(f"--seeds {sweep.seeds}: runs of every candidate, 1 to {most_seeds}")
    return faults


def candidates(rate: float, factors: Sequence[float]) -> tuple[float, ...]:
    """Return the rates to try first, in ascending order."""
    return tuple(rate if factor == 1 else _rounded(rate * factor) for factor in sorted(factors))


def choose(losses: Mapping[float, float]) -> Choice:
    """Return the rate with the lowest loss; of rates with equal losses, the lowest."""
    rates = sorted(losses)
    best = min(rates, key=lambda rate: (losses[rate], rate))
    place: Place = "lowest" if best == rates[0] else "highest" if best == rates[-1] else "interior"
    return Choice(best, losses[best], place)


def beyond(losses: Mapping[float, float]) -> float | None:
    """Return the next rate to try, or None if the best rate is interior or the next would be out of bounds. If the best
    rate is at an edge, the next is beyond it by the ratio of the last two rates."""
    rates, place = sorted(losses), choose(losses).place
    if place == "interior":
        return None
    edge, neighbour = (rates[0], rates[1]) if place == "lowest" else (rates[-1], rates[-2])
    rate = edge * (edge / neighbour)
    return _rounded(rate) if is_rate(rate) else None


def is_rate(rate: float) -> bool:
    """Return True if a number is plausible as a learning rate."""
    return 1e-30 < rate < 1e30


def _rounded(rate: float) -> float:
    return float(f"{rate:.{DIGITS}g}")
