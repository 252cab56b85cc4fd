"""Processes that are started before their turn, so that they import what they need while the stage before trains."""

import os
import subprocess
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from tfscale.schedule.launchers.attempt import Coming, Phase
from tfscale.schedule.launchers.processes import launch, waiting_command

MOST = 2
"""Processes that wait at the same time: a growth is over before another process has its imports."""


class Ahead:
    """Processes that wait to be told to begin. They hold nothing and write nothing until then."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[Path, Phase], subprocess.Popen[bytes]] = {}

    def expect(self, coming: Iterable[Coming]) -> None:
        """Has processes wait for the first of what is coming, and for nothing else."""
        expected = {(stage.path, phase): waiting_command(phase, stage.path) for stage, phase in islice(coming, MOST)}
        for each in self._waiting.keys() - expected.keys():
            process = self._waiting.pop(each)
            process.kill()
            process.communicate()
        for each, command in expected.items():
            if each not in self._waiting:
                self._waiting[each] = launch(each[1], command, Path(os.devnull))

    def begin(self, coming: Coming) -> subprocess.Popen[bytes] | None:
        """The process that has waited for this, told to begin; None if there is none."""
        process = self._waiting.pop((coming[0].path, coming[1]), None)
        if process is None:
            return None
        assert process.stdin is not None
        try:
            process.stdin.write(b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            process.communicate()
            return None  # it was killed while it waited
        return process
