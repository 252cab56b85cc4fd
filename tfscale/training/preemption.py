"""Requests that a stage stops: signals, and the end of the process that launched it.

When `tfscale run` is asked to stop (SIGTERM, SIGINT), it closes the standard input of the stages that it trains
(`tfscale.cli.execute`, `Orchestrator.stop`, `ProcessAttempt.stop`). Each of their processes sees that here and sets a
flag, which `Trainer.run` reads before its next step: it then saves a checkpoint and exits with 75.

One of several ranks has to hear the request: they agree before each step. Until they have met there is nothing to save,
and a rank that is asked ends at once, because the one that it waits for may never come.

A launcher can ask in three ways.

- End the standard input (`--supervised`). Ranks that torchrun has started share the standard input that torchrun was
  given, so all of them see its end. They also stop when the process that started them is gone, torchrun or launcher.
- Signal one rank, or several: SIGTERM, SIGINT or SIGUSR2. The `start` event holds the leading rank's process id. The
  ranks have all the time that they need to save.
- Signal torchrun itself. It passes SIGTERM on, and kills every rank that is not gone after its `--shutdown-timeout`:
  30 seconds, which is too early for the checkpoint of a large model.

torchrun turns every exit code but 0 into 1. The reason why a stage ended is then in its `end` event, which the leading
rank writes before any rank exits (`tfscale.training.alarm` for failures). A stage that was held by another process
(`tfscale.stage.lock`) has no such event.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tfscale.faults import PREEMPTED
from tfscale.training.place import read_place

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
"""Signals that ask a stage to stop. Clusters are configured to send SIGUSR2 before the time limit of a job."""
WATCH_SECONDS = 1.0


class Preemption:
    """A flag that a signal or a lost parent raises. A second signal ends a process that trains alone at once; the last
    checkpoint stays good. One of several ranks may get the same request twice, from torchrun and from its cluster, so
    it goes on saving.

    Requests are heard by threads, because the main thread runs no Python code while it waits for other ranks.

    Raises:
        UserFault: the environment does not say which rank of how many this is.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._alone = read_place().size == 1
        self._meeting = False

    def __call__(self) -> bool:
        """Return whether the stage has been asked to stop."""
        return self._asked.is_set()

    def watch_signals(self) -> None:
        """Takes over SIGTERM, SIGINT and SIGUSR2."""
        signals, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _ignore)
        threading.Thread(target=self._until_signal, args=(signals,), daemon=True).start()

    def watch_parent(self) -> None:
        """Stops when standard input ends, or the process that started this one. The orchestrator holds the other side
        of the input open, so even a killed orchestrator leaves no stage running."""
        for wait in (self._until_end_of_input, self._until_orphaned):
            threading.Thread(target=wait, daemon=True).start()

    @contextmanager
    def while_ranks_meet(self) -> Iterator[None]:
        """Ends the process at once when it is asked to stop, if it is one of several ranks."""
        self._meeting = not self._alone
        if self._asked.is_set():
            self._ask()
        yield
        self._meeting = False

    def _ask(self) -> None:
        self._asked.set()
        if self._meeting:
            os._exit(PREEMPTED)

    def _until_signal(self, signals: int) -> None:
        while os.read(signals, 1):
            if self._asked.is_set() and self._alone:
                os._exit(PREEMPTED)
            self._ask()

    def _until_end_of_input(self) -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        self._ask()

    def _until_orphaned(self) -> None:
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        self._ask()


def _ignore(number: int, frame: FrameType | None) -> None:
    """Takes the place of what a signal does by default: Python has written its number to the wakeup pipe by then."""
