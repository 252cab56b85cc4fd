"""Detection of requests to stop a stage. A request is a signal, the end of standard input, or the end of the parent
process.

Threads set a flag, which `Trainer.run` reads before each step. If the flag is set, the trainer saves a checkpoint, and
the process exits with code 75. A launcher can make the request in three ways.

- Close the standard input (`--supervised`), as `tfscale run` does. Ranks that torchrun has started share its standard
  input. Ranks also stop when their parent process, torchrun or the launcher, has ended.
- Send SIGTERM, SIGINT or SIGUSR2 to one or more ranks. One rank is enough, because the ranks exchange their flags
  before each step. The `start` event contains the process id of the leading rank. The time for saving is not limited.
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
"""Signals that ask a stage to stop. Clusters can be configured to send SIGUSR2 before the time limit of a job."""
WATCH_SECONDS = 1.0
"""Interval in seconds between checks of the parent process."""


class Preemption:
    """Flag that is set when a stage is asked to stop. Threads set the flag, because the main thread runs no Python code
    while it waits for other ranks.

    With a single rank, a second signal ends the process immediately; the last checkpoint remains valid. With several
    ranks, a second signal has no effect, because a rank may receive the same request from torchrun and the cluster.

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
        """Set the flag when standard input is closed or the parent process ends. Standard input is a pipe from the
        orchestrator, so stages stop even if the orchestrator is killed."""
        for wait in (self._until_end_of_input, self._until_orphaned):
            threading.Thread(target=wait, daemon=True).start()

    @contextmanager
    def while_ranks_meet(self) -> Iterator[None]:
        """Return a context manager for the time in which several ranks connect. A request to stop then ends this
        process immediately, because there is nothing to save, and other ranks may never start."""
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
