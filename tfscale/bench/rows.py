"""Benchmark results: rows of measured figures, and notes on what was left out."""

import json
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True)
class Row:
    """The measurements of one contestant in one case."""

    part: str
    case: str
    """The workload, such as `n = 8560`. Rows of one case are compared with each other."""
    name: str
    """The contestant."""
    seconds: tuple[float, ...] = ()
    """The time of each round."""
    figures: dict[str, float] = field(default_factory=dict)
    """Other measurements; each name includes its unit."""

    @property
    def median(self) -> float:
        """The median time in seconds."""
        return median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and upper quartile in seconds; of fewer than three rounds, the least and the most."""
        if len(self.seconds) < 3:
            return min(self.seconds), max(self.seconds)
        low, _, high = quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def to_json(self) -> dict[str, Any]:
        """Plain values, with median and quartiles."""
        derived = {"median": self.median, "quartiles": self.quartiles} if self.seconds else {}
        return {**asdict(self), **derived}


@dataclass(frozen=True)
class Note:
    """Something that was left out, and the reason."""

    part: str
    words: str


Found = Row | Note


def to_line(found: Found) -> str:
    """Format a result as a line of JSON, which `from_line` reads."""
    return json.dumps({"kind": type(found).__name__, **asdict(found)})


def from_line(line: str | bytes) -> Found:
    """Read what `to_line` wrote."""
    values = json.loads(line)
    if values.pop("kind") == "Note":
        return Note(**values)
    return Row(**{**values, "seconds": tuple(values["seconds"])})
