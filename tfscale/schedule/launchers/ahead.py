"""Processes that are started before their turn, so that they import what they need while the stage before trains, or
while the command reads its configuration."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from subprocess import Popen

from tfscale.schedule.launchers.attempt import Coming, Phase
from tfscale.schedule.launchers.processes import built_for_devices, launch, waiting_command

MOST = 2
"""Processes that wait at the same time: a growth is over before another process has its imports."""
_early: list[Popen[bytes]] = []


class Ahead:
    """Processes that wait to be told what to do. They hold nothing and write nothing until then."""

    def __init__(self) -> None:
        self._waiting: dict[Phase, list[Popen[bytes]]] = {"growing": [], "training": _early[:]}
        _early.clear()

    def expect(self, coming: Iterable[Coming]) -> None:
        """Has processes wait for the first of what is coming, and for nothing else."""
        expected = Counter(phase for _, phase in islice(coming, MOST))
        for phase, waiting in self._waiting.items():
            while len(waiting) > expected[phase]:
                _dismiss(waiting.pop())
            while len(waiting) < expected[phase]:
                waiting.append(_waiting(phase))

    def begin(self, coming: Coming) -> Popen[bytes] | None:
        """A process that has waited for such work, told to do it; None if there is none."""
        stage, phase = coming
        if not self._waiting[phase]:
            return None
        process = self._waiting[phase].pop(0)
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(str(stage.path)).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            process.communicate()
            return None  # it was killed while it waited
        return process


@contextmanager
def early() -> Iterator[None]:
    """Around a command that is going to train: a process begins to wait at once, and the first `Ahead` takes it over.
    Not where there may be CUDA devices, as `ThisMachine.expect` has it."""
    if not built_for_devices():
        with suppress(OSError):  # if there is no room for it now, its turn will tell
            _early.append(_waiting("training"))
    try:
        yield
    finally:
        dismiss_early()


def dismiss_early() -> None:
    """Ends that process if nobody has taken it over."""
    while _early:
        _dismiss(_early.pop())


def _waiting(phase: Phase) -> Popen[bytes]:
    return launch(phase, waiting_command(phase), Path(os.devnull))


def _dismiss(process: Popen[bytes]) -> None:
    process.kill()
    process.communicate()
