"""Execution of a benchmark, whose parts are modules with a function `measure`.

`python -m tfscale.bench.run MODULE SETTINGS` runs one part, and prints its results as lines of JSON.
"""

import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from subprocess import PIPE
from typing import Any

import torch

from tfscale import children
from tfscale.bench.rows import Found, Note, Row, from_line, to_line
from tfscale.bench.settings import Settings
from tfscale.end_with_input import until_input_ends
from tfscale.stage.spec import RunSpec
from tfscale.training.allocator import allocator
from tfscale.training.device import environment, resolve


@dataclass(frozen=True)
class Result:
    """Measurements and notes of a benchmark, with a description of the machine."""

    machine: dict[str, Any]
    rows: list[Row]
    notes: list[Note]
    failed: bool
    """True if a part failed."""

    def to_json(self) -> dict[str, Any]:
        """Return the machine, the rows and the notes as a dictionary for JSON."""
        notes = [asdict(note) for note in self.notes]
        return {"machine": self.machine, "rows": [row.to_json() for row in self.rows], "notes": notes}


def run(
    parts: Mapping[str, str],
    settings: Settings,
    tell: Callable[[Found], None],
    variables: Mapping[str, str] | None = None,
) -> Result:
    """Run the parts of a benchmark one after another, each in a separate process, and return all rows and notes. After
    Ctrl-C or SIGTERM, only the rows and notes found until then are returned. `parts` maps the names of the parts to
    their modules, and `variables` are added to the environment of the processes. `tell` is called with each row or note
    as soon as it is found."""
    machine, rows, notes, failed = _describe_machine(settings), [], [], False

    def take(found: Found) -> None:
        rows.append(found) if isinstance(found, Row) else notes.append(found)
        tell(found)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for part, module in parts.items():
            if code := _measure_apart(module, settings, take, variables):
                failed = True
                take(Note(part, f"the part failed with exit code {code}; see its output above"))
    except KeyboardInterrupt:
        take(Note(part, "the part was stopped; earlier measurements were kept"))
    return Result(machine, rows, notes, failed)


def _describe_machine(settings: Settings) -> dict[str, Any]:
    known = asdict(environment(resolve(RunSpec(data_dir="", device=settings.device, threads=settings.threads))))
    kept = ("python", "packages", "platform", "precision", "threads", "cores", "commit")
    processor = _processor()
    return {
        "device": torch.cuda.get_device_name() if settings.on_cuda else processor,
        "processor": processor,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": os.getloadavg()[0],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": settings.quick,
        **{name: known[name] for name in kept},
    }


def _processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def _measure_apart(
    module: str, settings: Settings, take: Callable[[Found], None], variables: Mapping[str, str] | None
) -> int:
    command = until_input_ends(children.python("tfscale.bench.run", module, json.dumps(asdict(settings))))
    process = children.start(command, children.environment(variables, defaults=allocator()), stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for line in process.stdout:
            take(from_line(line))
        return process.wait()
    finally:
        process.stdin.close()  # ends the process if it is still running
        process.wait()


def measure(module: str, settings: Settings) -> Iterator[Found]:
    """Apply the settings to this process, and yield the measurements of a part of a benchmark, or a note if a library
    is missing."""
    settings.apply()
    try:
        part = import_module(module)
    except ImportError as error:
        yield Note(module.rpartition(".")[2], f"the part was skipped, because {error.name} is not installed")
        return
    yield from part.measure(settings)


def main() -> None:
    try:
        for found in measure(sys.argv[1], Settings(**json.loads(sys.argv[2]))):
            print(to_line(found), flush=True)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
