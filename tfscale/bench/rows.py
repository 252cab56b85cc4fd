"""Benchmark results: rows of measurements, and notes on measurements that were skipped."""

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
    seconds: tuple[float, ...] = ()
    """Time per run in each round, in seconds."""
    figures: dict[str, float] = field(default_factory=dict)
    """Further measurements by name, such as `peak_bytes`."""

    @property
    def median(self) -> float:
        """Median time per run in seconds."""
        return median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartiles of the time per run in seconds, or the minimum and maximum if there are fewer than
        three rounds."""
        if len(self.seconds) < 3:
            return min(self.seconds), max(self.seconds)
        low, _, high = quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def to_json(self) -> dict[str, Any]:
        """Return the row as a dictionary for JSON, including median and quartiles."""
        derived = {"median": self.median, "quartiles": self.quartiles} if self.seconds else {}
        return {**asdict(self), **derived}


@dataclass(frozen=True)
class Note:
    """Note on a measurement that was skipped or failed, with the reason."""

    part: str
    words: str


Found = Row | Note


def to_line(found: Found) -> str:
    """Return a row or note as a line of JSON, which `from_line` can read."""
    return json.dumps({"kind": type(found).__name__, **asdict(found)})


def from_line(line: str | bytes) -> Found:
    """Return the row or note in a line of JSON that `to_line` wrote."""
    values = json.loads(line)
    if values.pop("kind") == "Note":
        return Note(**values)
    return Row(**{**values, "seconds": tuple(values["seconds"])})
