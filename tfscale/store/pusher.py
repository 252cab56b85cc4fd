"""Background thread that uploads stages to the store while they are trained."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread

from tfscale.stage.lock import StageHeld
from tfscale.store.remote import Store, StoreError
from tfscale.store.stages import push_corpus, push_stage, state_of

POLL_SECONDS = 1.0
"""Time in seconds between two checks for new checkpoints."""
LONGEST_WAIT = 300.0
LAST_WAITS = (0, 1, 2, 4)
"""Delays before the final attempts to upload all remaining files, as multiples of the time between two checks."""


class Pusher:
    """Background thread that uploads finished stages, new checkpoints of unfinished stages, and the corpus to a store.

    The thread finds new files by reading the stage folders, and does not run in the processes that train. After
    an error, the upload is tried again at increasing intervals. If the same error repeats, it is reported only once.

    Args:
        stages: stage folders, which may not exist yet.
        corpus: folder of the prepared corpus, or None to upload no corpus.
        say: function that prints a warning.
        seconds: time between two checks for new files, in seconds.
    """

    def __init__(
        self,
        store: Store,
        stages: Sequence[Path],
        corpus: Path | None,
        say: Callable[[str], None],
        seconds: float = POLL_SECONDS,
    ) -> None:
        self.fault: str | None = None
        """Error of the last attempt to upload all new files, or None if there was no error."""
        self._store, self._stages, self._corpus, self._say, self._seconds = store, stages, corpus, say, seconds
        self._pushed: dict[Path, str] = {}
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="stage store", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> str | None:
        """Upload all remaining files and wait until the thread ends. Return the reason why the store is not up to date,
        or None if the store is up to date."""
        self._stopping.set()
        self._thread.join()
        return self.fault

    def _run(self) -> None:
        wait = 0.0
        while not self._stopping.wait(wait):
            wait = self._seconds if self._push() else min(2 * max(wait, self._seconds), LONGEST_WAIT)
        for wait in LAST_WAITS:
            time.sleep(wait * self._seconds)
            if self._push():
                return

    def _push(self) -> bool:
        """Upload all changed stages, and the corpus if it has not been uploaded. If an upload fails, the other uploads
        continue. Return True if no upload failed."""
        try:
            faults = [fault for fault in map(self._push_one, self._new()) if fault]
        except OSError as error:  # the runs folder cannot be read
            faults = [str(error)]
        fault = faults[0] if faults else None
        if fault and fault != self.fault:
            self._say(f"warning: the stage store is not up to date, and the upload will be tried again: {fault}")
        self.fault = fault
        return fault is None

    def _new(self) -> list[tuple[Path, str]]:
        states = [(stage, state) for stage in self._stages if (state := state_of(stage)) is not None]
        corpus = [(self._corpus, "done")] if self._corpus is not None and self._corpus.exists() else []
        return [(folder, state) for folder, state in (*states, *corpus) if self._pushed.get(folder) != state]

    def _push_one(self, new: tuple[Path, str]) -> str | None:
        folder, state = new
        try:
            push_corpus(self._store, folder) if folder == self._corpus else push_stage(self._store, folder)
        except FileNotFoundError as fault:  # a newer checkpoint has replaced this one meanwhile, or a file is missing
            return str(fault) if state_of(folder) == state else None
        except (StoreError, StageHeld, OSError, ValueError) as fault:
            return str(fault)
        except Exception as bug:  # a failed upload must not stop training
            return f"unexpected error: {bug!r}"
        self._pushed[folder] = state
        return None
