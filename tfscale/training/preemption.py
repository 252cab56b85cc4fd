"""Asking a stage to stop: signals, and the end of the process that launched it."""

import os
import signal
import sys
import threading
from types import FrameType

PREEMPTED = 75
"""Exit code of a process that stopped because it was asked to: run it again to go on (EX_TEMPFAIL)."""


class Preemption:
    """A flag that SIGTERM, SIGINT or a lost parent raises. A second signal ends the process at once; the last
    checkpoint stays good."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def __call__(self) -> bool:
        """Whether the stage has been asked to stop."""
        return self._asked.is_set()

    def watch_signals(self) -> None:
        """Takes over SIGTERM and SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def watch_parent(self) -> None:
        """Stops when standard input ends. The orchestrator holds its other side open, so even a killed orchestrator
        leaves no stage running."""
        threading.Thread(target=self._until_end_of_input, daemon=True).start()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked.is_set():
            os._exit(PREEMPTED)
        self._asked.set()

    def _until_end_of_input(self) -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        self._asked.set()
