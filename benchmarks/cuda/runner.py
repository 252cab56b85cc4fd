"""Execution of the parts of the check, each in its own process with a time limit."""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from time import monotonic

from benchmarks.cuda.findings import Ended, How, write
from benchmarks.cuda.parts import Group, Part
from tfscale import children

LEAST_SECONDS = 20.0
"""Remaining time in seconds below which a part is not started."""
LOG_CHARACTERS = 800
COMPILERS = {"TORCHINDUCTOR_COMPILE_THREADS": "8"}
"""Environment variable that limits the compile threads of a part, because parts that run in parallel share the
cores."""
Command = Callable[[Part], Sequence[str]]


@dataclass(frozen=True)
class _Running:
    part: Part
    process: Popen[bytes]
    log: Path
    started: float


def run_groups(groups: Sequence[Group], command: Command, out: Path, deadline: float) -> None:
    """Run the groups one after another and record the end of each part.

    Args:
        command: function that returns the command line of a part.
        deadline: time limit for all groups together, in seconds.
    """
    until = monotonic() + deadline
    for group in groups:
        left = until - monotonic()
        if left < min(LEAST_SECONDS, group.seconds):
            for part in group.parts:
                write(out, Ended(part.name, "left out", 0.0, f"only {max(0.0, left):.0f} s remained"))
            continue
        end = monotonic() + min(group.seconds, left)
        for running in [_start(part, command(part), out) for part in group.parts]:
            ended = _finish(running, end)
            write(out, ended)
            print(f"{ended.part:14} {ended.how:9} {ended.seconds:6.1f} s", flush=True)


def run_here(groups: Sequence[Group], run: Callable[[Part], None], out: Path) -> None:
    """Run the parts one after another in this process without time limits, and record the end of each part."""
    for part in (part for group in groups for part in group.parts):
        started = monotonic()
        run(part)
        write(out, Ended(part.name, "finished", round(monotonic() - started, 1)))


def _start(part: Part, command: Sequence[str], out: Path) -> _Running:
    log = out / f"{part.name}.log"
    with log.open("wb") as file:
        process = children.start(command, children.environment(defaults=COMPILERS), stdout=file, stderr=file)
    return _Running(part, process, log, monotonic())


def _finish(running: _Running, end: float) -> Ended:
    try:
        code = running.process.wait(max(0.0, end - monotonic()))
    except TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()
        return _ended(running, "cut off")
    return _ended(running, "crashed" if code else "finished")


def _ended(running: _Running, how: How) -> Ended:
    log = "" if how == "finished" else running.log.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
    return Ended(running.part.name, how, round(monotonic() - running.started, 1), log)
