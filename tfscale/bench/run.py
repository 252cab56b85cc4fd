"""A whole benchmark: its parts one after another, each in a process of its own."""

import json
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from subprocess import PIPE, TimeoutExpired
from typing import Any

from tfscale import children
from tfscale.bench.machine import machine
from tfscale.bench.rows import Found, Note, Row, Rows, Verdict, plain
from tfscale.bench.settings import Settings
from tfscale.bench.worker import from_line, verdicts
from tfscale.training.allocator import HUGE_PAGES, allocator

GROWTH = "growth"
"""The part whose process grows, in place of training."""
PATIENCE = 20.0
"""Seconds in which a part that is stopped may clear its temporary folder away."""


@dataclass(frozen=True)
class Result:
    """All that a run has found."""

    machine: dict[str, Any]
    rows: list[Row]
    notes: list[Note]
    verdicts: list[Verdict]
    broken: bool
    """Whether a part failed."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "machine": self.machine,
            "rows": [plain(row) for row in self.rows],
            "notes": [asdict(note) for note in self.notes],
            "verdicts": [plain(verdict) for verdict in self.verdicts],
        }


def run(parts: Sequence[str], settings: Settings, tell: Callable[[Found], None]) -> Result:
    """Measures the parts. After Ctrl-C, or SIGTERM, the result is what has been measured so far.

    Args:
        tell: is told of everything as it is found.
    """
    about, rows, notes, broken = machine(settings), [], [], False

    def take(found: Found) -> None:
        rows.append(found) if isinstance(found, Row) else notes.append(found)
        tell(found)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for part in parts:
            if code := _measure(part, settings, take):
                broken = True
                take(Note(part, f"broke off with exit code {code}; what it said stands above"))
    except KeyboardInterrupt:
        take(Note(part, "stopped; what was measured before is kept"))
    said = [verdict for part in parts for verdict in verdicts(part, Rows(rows), settings)]
    return Result(about, rows, notes, said, broken)


def _measure(part: str, settings: Settings, take: Callable[[Found], None]) -> int:
    """Runs one part; its exit code."""
    command = children.python("tfscale.bench.worker", part, json.dumps(asdict(settings)))
    # As a stage has it; whole models choose their own.
    defaults = allocator() | (HUGE_PAGES if part == GROWTH else {})
    process = children.start(command, children.environment(defaults=defaults), stdout=PIPE)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            take(from_line(line))
        return process.wait()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with suppress(TimeoutExpired):
            process.wait(PATIENCE)
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
