"""Detection of requests to stop a stage, which are signals or the end of the process that launched the stage.

When `tfscale run` is asked to stop (SIGTERM, SIGINT), it closes the standard input of the stages that it trains
(`tfscale.cli.execute`, `Orchestrator._watch`, `ProcessAttempt.stop`). In each training process, this module detects the
request and sets a flag. `Trainer.run` reads the flag before its next step, saves a checkpoint and exits with code 75.

If there are several ranks, one rank is enough to receive the request, because the ranks exchange their flags before
each step. Before the ranks have connected there is nothing to save, so a rank that receives a request exits
immediately, because the rank for which it waits may never start.

A launcher can make the request in three ways.

- Close the standard input (`--supervised`). Ranks that torchrun has started share the standard input of torchrun, so
  all of them detect that it is closed. Ranks also stop when their parent process, torchrun or the launcher, has ended.
- Send SIGTERM, SIGINT or SIGUSR2 to one or more ranks. The `start` event contains the process id of the leading rank.
  The time for saving is not limited.
- Send SIGTERM to torchrun. It forwards the signal, and kills all ranks that are still running after its
  `--shutdown-timeout` of 30 seconds, which is too short for the checkpoint of a large model.

torchrun turns every exit code other than 0 into 1. The reason for the end of a stage is therefore in its `end` event,
which the leading rank writes before any rank exits (see `tfscale.training.alarm` for failures). If another process
works on the stage (`tfscale.stage.lock`), no `end` event is written.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tfscale.faults import PREEMPTED
from tfscale.training.process_rank import read_process_rank

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
"""Signals that request a stage to stop. Clusters can be configured to send SIGUSR2 before the time limit of a job."""
WATCH_SECONDS = 1.0
"""Interval in seconds between checks of the parent process."""


class Preemption:
    """Flag that is set by a signal, by the end of standard input, or by the end of the parent process.

    If there is only one rank, a second signal ends the process immediately; the last checkpoint remains valid. If there
    are several ranks, a rank may receive the same request twice, from torchrun and from the cluster, so a second signal
    has no effect.

    Threads receive the requests, because the main thread runs no Python code while it waits for other ranks.

    Args:
        stop_at: step after which the stage stops even without a request, or None.

    Raises:
        UserFault: the environment variables do not specify the rank of this process or the number of ranks.
    """

    def __init__(self, stop_at: int | None = None) -> None:
        self._stop_at = stop_at
        self._asked = threading.Event()
        self._alone = read_process_rank().size == 1
        self._meeting = False

    def __call__(self) -> bool:
        """Return whether a request to stop the stage has been received."""
        return self._asked.is_set()

    def after(self, step: int) -> bool:
        """Return whether the stage must stop after a step, because of a request or because `stop_at` is reached."""
        return self() or (self._stop_at is not None and step >= self._stop_at)

    def watch_signals(self) -> None:
        """Set the flag when SIGTERM, SIGINT or SIGUSR2 is received."""
        signals, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in SIGNALS:  # replaces the default action; Python has already written the number to the pipe
            signal.signal(number, lambda number, frame: None)
        threading.Thread(target=self._until_signal, args=(signals,), daemon=True).start()

    def watch_parent(self) -> None:
        """Set the flag when standard input is closed or when the parent process ends. The orchestrator keeps the other
        end of the input open, so stages stop even if the orchestrator is killed."""
        for wait in (self._until_end_of_input, self._until_orphaned):
            threading.Thread(target=wait, daemon=True).start()

    @contextmanager
    def while_ranks_meet(self) -> Iterator[None]:
        """Return a context manager for connecting the ranks. If there are several ranks, a request to stop ends this
        process immediately."""
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
