"""Requests to stop a stage: signals, and the end of the process that launched it.

When `tfscale run` is asked to stop (SIGTERM, SIGINT), it closes the standard input of the stages that it trains
(`tfscale.cli.execute`, `Orchestrator.stop`, `ProcessAttempt.stop`). This module detects that in each of their processes
and sets a flag, which `Trainer.run` reads before its next step: it then saves a checkpoint and exits with 75.

It is enough if one of several ranks receives the request, because the ranks agree before each step. Before the ranks
have connected there is nothing to save, so a rank that receives a request exits immediately: the rank that it waits for
may never start.

A launcher can make the request in three ways.

- Close the standard input (`--supervised`). Ranks that torchrun has started share torchrun's standard input, so all of
  them see its end. They also stop when the process that started them, torchrun or the launcher, has ended.
- Send SIGTERM, SIGINT or SIGUSR2 to one or more ranks. The `start` event holds the leading rank's process id. The ranks
  have as much time as they need to save.
- Send SIGTERM to torchrun itself. It passes the signal on, and kills every rank that is still running after its
  `--shutdown-timeout` of 30 seconds, which is too early for the checkpoint of a large model.

torchrun turns every exit code other than 0 into 1. The reason why a stage ended is then in its `end` event, which the
leading rank writes before any rank exits (`tfscale.training.alarm` for failures). A stage that was held by another
process (`tfscale.stage.lock`) has no such event.
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
"""Interval at which the parent process is checked."""


class Preemption:
    """Flag that is set by a signal or by the end of the parent process.

    A second signal ends a process that trains alone immediately; its last checkpoint remains valid. One of several
    ranks may receive the same request twice, from torchrun and from its cluster, so it continues to save.

    Threads receive the requests, because the main thread runs no Python code while it waits for other ranks.

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
        """Install handlers for SIGTERM, SIGINT and SIGUSR2, which then set the flag."""
        signals, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _ignore)
        threading.Thread(target=self._until_signal, args=(signals,), daemon=True).start()

    def watch_parent(self) -> None:
        """Set the flag when standard input or the process that started this one ends. The orchestrator holds the other
        end of the input open, so even a killed orchestrator leaves no stage running."""
        for wait in (self._until_end_of_input, self._until_orphaned):
            threading.Thread(target=wait, daemon=True).start()

    @contextmanager
    def while_ranks_meet(self) -> Iterator[None]:
        """Return a context in which a request to stop ends this process immediately if it is one of several ranks."""
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
    """Do nothing, instead of the signal's default action: Python has already written its number to the wakeup pipe."""
