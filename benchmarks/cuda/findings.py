"""Findings of the check. Each is written to disk immediately, as a line of JSON, so that none is lost if a part is
killed."""

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
"""Name of the measurement with the device, the versions and the commit."""
KERNELS = "kernels"
"""Name of the figure that lists the kernels of a step, each with its name, number of calls and milliseconds."""
How = Literal["finished", "crashed", "cut off", "left out"]
ERROR_CHARACTERS = 600
"""Maximum length of a recorded error message. The recorded traceback is up to twice as long."""


class NotMeasured(Exception):
    """Exception for a measurement that was not made as its name states, for example in another precision."""


@dataclass(frozen=True)
class Measured:
    """Measurement with figures that have no bound."""

    part: str
    name: str
    figures: dict[str, Any]
    seconds: float = 0.0
    """Duration of the measurement."""


@dataclass(frozen=True)
class Bounded:
    """Measured value with an upper bound."""

    part: str
    name: str
    value: float
    bound: float

    @property
    def ok(self) -> bool:
        """True if the bound is met. NaN does not meet it."""
        return self.value <= self.bound


@dataclass(frozen=True)
class Failed:
    """Measurement that raised an error. The part of the check continued."""

    part: str
    name: str
    error: str
    where: str = ""


@dataclass(frozen=True)
class Ended:
    """End of the process of a part of the check."""

    part: str
    how: How
    seconds: float
    log: str = ""
    """Last characters of the output, or an empty text if the part finished."""

    @property
    def ok(self) -> bool:
        """True if the part finished."""
        return self.how == "finished"


Finding = Measured | Bounded | Failed | Ended
KINDS: dict[str, type[Finding]] = {"measured": Measured, "bound": Bounded, "failed": Failed, "ended": Ended}


def write(out: Path, finding: Finding) -> None:
    """Append a finding to OUT/results.jsonl and sync the file."""
    kind = next(name for name, each in KINDS.items() if isinstance(finding, each))
    ok = {"ok": finding.ok} if isinstance(finding, Bounded | Ended) else {}
    line = json.dumps(_plain({"kind": kind, **asdict(finding), **ok, "time": round(time(), 1)}), allow_nan=False)
    with (out / RESULTS).open("ab", buffering=0) as file:  # one write per line, because parts run in parallel
        file.write(line.encode() + b"\n")
        os.fsync(file.fileno())


def _plain(value: Any) -> Any:
    """Return a value converted to types that JSON can represent. Non-finite numbers become strings."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def read(out: Path) -> list[Finding]:
    """Return all findings in the order of the file. An invalid line becomes a failed measurement.

    Raises:
        FileNotFoundError: no finding has been written.
    """
    lines = (out / RESULTS).read_text(encoding="utf-8", errors="replace").splitlines()
    return [_finding(number, line) for number, line in enumerate(lines, start=1)]


def _finding(number: int, line: str) -> Finding:
    try:
        values = json.loads(line)
        kind = KINDS[values["kind"]]
        known = {field.name: values[field.name] for field in fields(kind)}
    except (ValueError, TypeError, KeyError):
        return Failed("results", f"line {number}", f"not a valid finding: {line[:80]}")
    if kind is Bounded:
        known = {**known, "value": float(known["value"]), "bound": float(known["bound"])}
    return kind(**known)


@dataclass(frozen=True)
class Recorder:
    """Writer of the findings of one part."""

    out: Path
    part: str

    def measured(self, name: str, figures: Mapping[str, Any], seconds: float = 0.0) -> None:
        """Record figures without a bound."""
        write(self.out, Measured(self.part, name, dict(figures), round(seconds, 2)))

    def bounded(self, name: str, value: float, bound: float) -> None:
        """Record a value with an upper bound."""
        write(self.out, Bounded(self.part, name, value, bound))

    def failed(self, name: str, error: str, where: str = "") -> None:
        """Record a failed measurement."""
        write(self.out, Failed(self.part, name, error, where))

    def attempt(self, name: str, measure: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Record the figures that `measure` returns, or the exception that it raises.

        Returns:
            The figures, or an empty mapping after an exception.
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
