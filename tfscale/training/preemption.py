"""Asking a stage to stop: signals, and the end of the process that launched it.

Of several ranks it is enough that one hears it: they agree before each step. A launcher can ask in three ways.

- End the standard input (`--supervised`). Ranks that torchrun has started share the standard input that torchrun was
  given, so all of them see its end. They also stop when the process that started them is gone, torchrun or launcher.
- Signal one rank, or several: SIGTERM, SIGINT or SIGUSR2. The `start` event holds the leading rank's process id. The
  ranks have all the time that they need to save.
- Signal torchrun itself. It passes SIGTERM on, and kills every rank that is not gone after its `--shutdown-timeout`:
  30 seconds, which is too early for the checkpoint of a large model.

torchrun turns every exit code but 0 into 1. Why a stage has ended then stands in its `end` event, which the leading
rank writes before any rank exits (`tfscale.training.alarm` for failures). A stage that was held by another process
(`tfscale.training.lock`) has no such event.
"""

import os
import signal
import sys
import threading
import time
from types import FrameType

PREEMPTED = 75
"""Exit code of a process that stopped because it was asked to: run it again to go on (EX_TEMPFAIL)."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
"""SIGUSR2: what clusters are told to send before a job's time is over."""
WATCH_SECONDS = 1.0


class Preemption:
    """A flag that a signal or a lost parent raises. A second signal ends a process that trains alone at once; the last
    checkpoint stays good. One of several ranks may get the same request twice, from torchrun and from its cluster, so
    it goes on saving."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._alone = int(os.environ.get("WORLD_SIZE", "1")) == 1

    def __call__(self) -> bool:
        """Whether the stage has been asked to stop."""
        return self._asked.is_set()

    def watch_signals(self) -> None:
        """Takes over SIGTERM, SIGINT and SIGUSR2."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def watch_parent(self) -> None:
        """Stops when standard input ends, or the process that started this one. The orchestrator holds the other side
        of the input open, so even a killed orchestrator leaves no stage running."""
        for wait in (self._until_end_of_input, self._until_orphaned):
            threading.Thread(target=wait, daemon=True).start()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked.is_set() and self._alone:
            os._exit(PREEMPTED)
        self._asked.set()

    def _until_end_of_input(self) -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        self._asked.set()

    def _until_orphaned(self) -> None:
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        self._asked.set()
