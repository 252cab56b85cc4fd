"""The choice of a learning rate from a sweep: the rates to try, the best one, and its place in the range."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Place = Literal["interior", "lowest", "highest"]
"""`interior`: both neighbours are worse. `lowest`, `highest`: the best rate is at the edge of the range, and a better
one may be beyond it."""

DIGITS = 3
"""Significant digits of a candidate rate, so that it is short to write."""

CLOSEST = 1.01
"""Smallest ratio of neighbouring rates, so that they still differ when they are rounded."""


@dataclass(frozen=True)
class Sweep:
    """The candidates for every learning rate."""

    factors: tuple[float, ...]
    """Multiples of the current rate, ascending."""
    further: int
    """Number of rates beyond that range that may be tried while the best is at its edge."""
    seeds: int
    """Runs per candidate with different random seeds; their mean counts."""


@dataclass(frozen=True)
class Choice:
    """The result of a sweep."""

    rate: float
    loss: float
    """Mean validation loss of the chosen rate's runs in nats per token; inf if every candidate diverged."""
    place: Place


def factors_of(text: str) -> tuple[tuple[float, ...], list[str]]:
    """Parse factors such as `0.5,1,2`; return them ascending, and the faults."""
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
    """Return the faults in the number of runs of a sweep."""
    faults = []
    if sweep.further < 0:
        faults.append(f"--further {sweep.further}: rates beyond the range, at least 0")
    if not 1 <= sweep.seeds <= most_seeds:
        faults.append(f"--seeds {sweep.seeds}: runs of every candidate, 1 to {most_seeds}")
    return faults


def candidates(rate: float, factors: Sequence[float]) -> tuple[float, ...]:
    """Return the rates to try first, ascending."""
    return tuple(rate if factor == 1 else _rounded(rate * factor) for factor in sorted(factors))


def choose(losses: Mapping[float, float]) -> Choice:
    """Return the rate with the lowest loss; of equal ones the lowest rate."""
    rates = sorted(losses)
    best = min(rates, key=lambda rate: (losses[rate], rate))
    place: Place = "lowest" if best == rates[0] else "highest" if best == rates[-1] else "interior"
    return Choice(best, losses[best], place)


def beyond(losses: Mapping[float, float]) -> float | None:
    """Return the next rate to try: beyond the edge if the best one is there, by the ratio of the last two. None if the
    best is interior, or the next one would be out of bounds."""
    rates, place = sorted(losses), choose(losses).place
    if place == "interior":
        return None
    edge, neighbour = (rates[0], rates[1]) if place == "lowest" else (rates[-1], rates[-2])
    rate = edge * (edge / neighbour)
    return _rounded(rate) if is_rate(rate) else None


def is_rate(rate: float) -> bool:
    """Return whether a number is plausible as a learning rate."""
    return 1e-30 < rate < 1e30


def _rounded(rate: float) -> float:
    return float(f"{rate:.{DIGITS}g}")
