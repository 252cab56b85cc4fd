"""What a benchmark says: rows of figures, notes on what was left out, and verdicts on the targets."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True)
class Row:
    """What was measured of one contestant."""

    part: str
    case: str
    """Such as `n = 8560`: what is compared with each other."""
    name: str
    """Of the contestant."""
    seconds: tuple[float, ...] = ()
    """Of each round."""
    figures: dict[str, float] = field(default_factory=dict)
    """Other values, under names that say their unit."""

    @property
    def median(self) -> float:
        """Seconds, of all rounds."""
        return median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Seconds, lower and upper; of fewer than three rounds the least and the most."""
        if len(self.seconds) < 3:
            return min(self.seconds), max(self.seconds)
        low, _, high = quantiles(self.seconds, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True)
class Note:
    """What was left out, and why."""

    part: str
    words: str


@dataclass(frozen=True)
class Verdict:
    """A figure of this run beside its target."""

    part: str
    name: str
    value: float
    target: float
    at_least: bool
    """Whether more is better."""

    @property
    def reached(self) -> bool:
        """Whether the target is."""
        return self.value >= self.target if self.at_least else self.value <= self.target


Found = Row | Note


class Rows:
    """The rows of a run, to be looked up by what they are about."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = {(row.part, row.case, row.name): row for row in rows}

    def of(self, part: str) -> list[Row]:
        """The rows of a part."""
        return [row for row in self._rows.values() if row.part == part]

    def get(self, part: str, case: str, name: str) -> Row | None:
        """One row; None where it was not measured."""
        return self._rows.get((part, case, name))

    def both(self, part: str, case: str, one: str, other: str) -> tuple[Row, Row] | None:
        """Two rows of a case; None where one of them was not measured."""
        a, b = self.get(part, case, one), self.get(part, case, other)
        return None if a is None or b is None else (a, b)


def plain(found: Row | Verdict) -> dict[str, Any]:
    """Values for JSON, with what follows from them."""
    if isinstance(found, Verdict):
        return {**asdict(found), "reached": found.reached}
    follows = {"median": found.median, "quartiles": found.quartiles} if found.seconds else {}
    return {**asdict(found), **follows}
