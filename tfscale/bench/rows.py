"""Benchmark results, which are rows of measured figures and notes on what was left out."""

import json
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True)
class Row:
    """Measurements of one contestant in one case."""

    part: str
    case: str
    """Name of the workload, such as `n = 8560`. Rows of the same case are compared with each other."""
    name: str
    """Name of the contestant."""
    seconds: tuple[float, ...] = ()
    """Time per run in each round, in seconds."""
    figures: dict[str, float] = field(default_factory=dict)
    """Other measurements by name; each name includes its unit."""

    @property
    def median(self) -> float:
        """Median time in seconds."""
        return median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartiles of the time in seconds; the minimum and maximum for fewer than three rounds."""
        if len(self.seconds) < 3:
            return min(self.seconds), max(self.seconds)
        low, _, high = quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain values for JSON, with median and quartiles."""
        derived = {"median": self.median, "quartiles": self.quartiles} if self.seconds else {}
        return {**asdict(self), **derived}


@dataclass(frozen=True)
class Note:
    """Note on something that was left out, and the reason."""

    part: str
    words: str


Found = Row | Note


def to_line(found: Found) -> str:
    """Return a row or note as a line of JSON, which `from_line` reads."""
    return json.dumps({"kind": type(found).__name__, **asdict(found)})


def from_line(line: str | bytes) -> Found:
    """Return the row or note that `to_line` wrote."""
    values = json.loads(line)
    if values.pop("kind") == "Note":
        return Note(**values)
    return Row(**{**values, "seconds": tuple(values["seconds"])})
