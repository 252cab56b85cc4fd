"""Choice of a learning rate by a sweep over a range of rates."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Place = Literal["interior", "lowest", "highest"]
"""Place of the best rate in the range of a sweep: `interior`, or at an edge (`lowest`, `highest`), beyond which a
better rate may exist."""

DIGITS = 3
"""Number of significant digits of a candidate rate."""

CLOSEST = 1.01
"""Minimum ratio of neighbouring factors, so that rates still differ after rounding."""


@dataclass(frozen=True)
class Sweep:
    """Settings of the sweep over each learning rate."""

    factors: tuple[float, ...]
    """Multiples of the current rate, ascending."""
    further: int
    """Maximum number of further rates to try beyond the range while the best rate is at an edge."""
    seeds: int
    """Number of runs per candidate rate, whose seeds differ and whose mean loss is compared."""


@dataclass(frozen=True)
class Choice:
    """Result of a sweep."""

    rate: float
    loss: float
    """Mean validation loss of the chosen rate's runs in nats per token; inf if every candidate diverged."""
    place: Place


def factors_of(text: str) -> tuple[tuple[float, ...], list[str]]:
    """Parse factors such as `0.5,1,2`, and return the factors in ascending order and the faults."""
    factors, faults = [], []
    for each in text.split(","):
        try:
            factor = float(each)
        except ValueError:
            factor = math.nan
        if 0 < factor < math.inf:
            factors.append(factor)
        else:
            faults.append(f"--factors: {each.strip()!r} must be a number above 0; try 0.5,1,2")
    factors.sort()
    for lower, higher in pairwise(factors):
        if higher < lower * CLOSEST:
            faults.append(
                f"--factors: {lower:g} and {higher:g} are too close; each must be at least 1% above the previous one"
            )
    if len(factors) < 2 and not faults:
        faults.append(f"--factors {text}: must be at least two numbers; try 0.5,1,2")
    return tuple(factors), faults


def sweep_faults(sweep: Sweep, most_seeds: int) -> list[str]:
    """Return the faults in the numbers of rates and seeds of a sweep."""
    faults = []
    if sweep.further < 0:
        faults.append(f"--further {sweep.further}: must be at least 0; try 3")
    if not 1 <= sweep.seeds <= most_seeds:
        faults.append(f"--seeds {sweep.seeds}: must be from 1 to {most_seeds}; try 1")
    return faults


def candidates(rate: float, factors: Sequence[float]) -> tuple[float, ...]:
    """Return the first rates of a sweep, in ascending order."""
    return tuple(rate if factor == 1 else _rounded(rate * factor) for factor in sorted(factors))


def choose(losses: Mapping[float, float]) -> Choice:
    """Return the rate with the lowest loss, or the lowest of the rates with equal losses."""
    rates = sorted(losses)
    best = min(rates, key=lambda rate: (losses[rate], rate))
    place: Place = "lowest" if best == rates[0] else "highest" if best == rates[-1] else "interior"
    return Choice(best, losses[best], place)


def beyond(losses: Mapping[float, float]) -> float | None:
    """Return the next rate to try, which extends the range at the edge with the best rate by the ratio of the last two
    rates. Return None if the best rate is interior or the next rate would be out of bounds."""
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
