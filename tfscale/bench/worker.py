"""python -m tfscale.bench.worker PART SETTINGS: measures one part in a process of its own, and prints what it finds as
lines of JSON."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module

from tfscale.bench.rows import Found, Note, Row, Rows, Verdict
from tfscale.bench.settings import Settings
from tfscale.leash import end_with_input

PARTS = ("pattention", "step", "growth", "data", "overhead", "orchestration")
"""In the order in which they are measured."""
OTHERS = ("memory",)
"""Measured only when they are asked for."""


def measure(part: str, settings: Settings) -> Iterator[Found]:
    """Measures a part here, row by row; a part whose libraries are not installed is a note."""
    settings.apply()
    try:
        module = import_module(f"tfscale.bench.{part}")
    except ImportError as error:
        yield Note(part, f"left out: {error.name} is not installed")
        return
    yield from module.measure(settings)


def verdicts(part: str, rows: Rows, settings: Settings) -> list[Verdict]:
    """What the rows say about a part's targets."""
    try:
        return list(import_module(f"tfscale.bench.{part}").verdicts(rows, settings))
    except ImportError:
        return []  # it was left out


def to_line(found: Found) -> str:
    """A line of JSON, which `from_line` reads."""
    return json.dumps({"kind": type(found).__name__, **asdict(found)})


def from_line(line: str | bytes) -> Found:
    """What `to_line` wrote."""
    values = json.loads(line)
    if values.pop("kind") == "Note":
        return Note(**values)
    return Row(**{**values, "seconds": tuple(values["seconds"])})


def main() -> None:
    end_with_input()
    part, settings = sys.argv[1], Settings(**json.loads(sys.argv[2]))
    try:
        for found in measure(part, settings):
            print(to_line(found), flush=True)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
