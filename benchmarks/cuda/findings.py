"""Findings of a check: one line of JSON each, on disk as soon as it is known, so that a cut-off loses nothing."""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import perf_counter, time
from traceback import format_exc
from typing import Any, Literal

RESULTS = "results.jsonl"
MACHINE = "machine"
"""The measurement that names the device, the versions and the commit."""
KERNELS = "kernels"
"""The figure that lists the kernels of a step: name, calls, milliseconds."""
How = Literal["finished", "crashed", "cut off", "left out"]
ERROR_CHARACTERS = 600
"""Kept of an error's message; of where it was raised, twice as many."""


@dataclass(frozen=True)
class Measured:
    """Figures without a bound."""

    part: str
    name: str
    figures: dict[str, Any]
    seconds: float = 0.0
    """The time that measuring took."""


@dataclass(frozen=True)
class Bounded:
    """A value and the most that it may be."""

    part: str
    name: str
    value: float
    bound: float

    @property
    def ok(self) -> bool:
        """True if the bound is held. A value that is not a number breaks it."""
        return self.value <= self.bound


@dataclass(frozen=True)
class Failed:
    """A measurement that raised an error; its part went on."""

    part: str
    name: str
    error: str
    where: str = ""


@dataclass(frozen=True)
class Ended:
    """The end of a part's process."""

    part: str
    how: How
    seconds: float
    log: str = ""
    """The last lines of its output, unless it finished."""

    @property
    def ok(self) -> bool:
        """True if the part ran to its end."""
        return self.how == "finished"


Finding = Measured | Bounded | Failed | Ended
KINDS: dict[str, type[Finding]] = {"measured": Measured, "bound": Bounded, "failed": Failed, "ended": Ended}


def write(out: Path, finding: Finding) -> None:
    """Appends a finding to OUT/results.jsonl and returns when it is on disk."""
    kind = next(name for name, each in KINDS.items() if isinstance(finding, each))
    ok = {"ok": finding.ok} if isinstance(finding, Bounded | Ended) else {}
    line = json.dumps(_plain({"kind": kind, **asdict(finding), **ok, "time": round(time(), 1)}), allow_nan=False)
    with (out / RESULTS).open("ab", buffering=0) as file:  # one write, for parts that run side by side
        file.write(line.encode() + b"\n")
        os.fsync(file.fileno())


def _plain(value: Any) -> Any:
    """The value for JSON, which has no number for infinity."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def read(out: Path) -> list[Finding]:
    """All findings so far, in order; a line that is not one, such as half a line, counts as a failed measurement.

    Raises:
        FileNotFoundError: there are none.
    """
    lines = (out / RESULTS).read_text(encoding="utf-8", errors="replace").splitlines()
    return [_finding(number, line) for number, line in enumerate(lines, start=1)]


def _finding(number: int, line: str) -> Finding:
    try:
        values = json.loads(line)
        kind = KINDS[values["kind"]]
        known = {field.name: values[field.name] for field in fields(kind)}
    except (ValueError, TypeError, KeyError):
        return Failed("results", f"line {number}", f"is not a finding: {line[:80]}")
    if kind is Bounded:
        known = {**known, "value": float(known["value"]), "bound": float(known["bound"])}
    return kind(**known)


@dataclass(frozen=True)
class Recorder:
    """Writes the findings of one part."""

    out: Path
    part: str

    def measured(self, name: str, figures: Mapping[str, Any], seconds: float = 0.0) -> None:
        """Record figures."""
        write(self.out, Measured(self.part, name, dict(figures), round(seconds, 2)))

    def bounded(self, name: str, value: float, bound: float) -> None:
        """Record a value that has a bound."""
        write(self.out, Bounded(self.part, name, value, bound))

    def failed(self, name: str, error: str, where: str = "") -> None:
        """Record that something could not be measured."""
        write(self.out, Failed(self.part, name, error, where))

    def attempt(self, name: str, measure: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Record what `measure` returns, or the error that it raises, and go on.

        Returns:
            The figures; none after an error.
        """
        started = perf_counter()
        try:
            figures = measure()
        except Exception as error:
            kept = f"{type(error).__name__}: {str(error)[:ERROR_CHARACTERS]}"
            self.failed(name, kept, format_exc()[-2 * ERROR_CHARACTERS :])
            return {}
        self.measured(name, figures, perf_counter() - started)
        return figures
