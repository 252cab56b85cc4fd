"""Reports of failures by the rank that fails, before any process exits.

A rank that fails leaves the others waiting in a collective call, through which nothing can be sent any more. So it
writes a report to the key-value store through which all ranks have connected. A thread of the leading rank polls the
store, writes the stage's `end` event, and ends its process; torchrun ends the rest.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from tfscale.training.world import Ranks

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 30.0
"""Longest time that a failing rank waits for the leading rank to record the failure."""
FAILURE, TOLD = "failure", "told"


class Alarm:
    """Word of a failure, from any rank to the stage's record."""

    def __init__(self, world: Ranks, record: Callable[[str, str], None]) -> None:
        """
        Args:
            record: writes an `end` event with a reason and a message; called on the leading rank alone.
        """
        self._world, self._record = world, record
        self._lock = threading.Lock()
        self._over = False
        if world.size > 1:
            self._store = self._connect()
            if world.leads:
                threading.Thread(target=self._watch, daemon=True).start()

    @staticmethod
    def _connect() -> PrefixStore:
        # A connection of its own: one that is shared would wait while another thread's call waits.
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=60))
        return PrefixStore(f"tfscale/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)

    def ring(self, reason: str, message: str) -> None:
        """Returns when the stage's record says why it has failed, or its leading rank does not answer."""
        if self._world.leads:
            self._write(reason, message)
            return
        failure = {"reason": reason, "message": f"rank {self._world.rank}: {message}"}
        end = time.monotonic() + PATIENCE_SECONDS
        with suppress(RuntimeError):  # the process that holds the store is gone; it has reported the failure, or cannot
            self._store.set(FAILURE, json.dumps(failure))
            while not self._store.check([TOLD]) and time.monotonic() < end:
                time.sleep(POLL_SECONDS)

    def rung(self) -> bool:
        """Return whether a rank has reported a failure. What this rank then runs into is not its own fault."""
        if self._world.size == 1:
            return False
        try:
            return bool(self._store.check([FAILURE]) or self._store.check([TOLD]))
        except RuntimeError:  # whoever holds the store is gone
            return False

    def leave(self) -> None:
        """Called by the leading rank when the stage is not its own to write about: the others need not wonder."""
        if self._world.size > 1:
            self._store.set(TOLD, "")

    def stop(self) -> None:
        """Stop watching: the stage has ended well, and there is nothing to report."""
        self._over = True

    def _write(self, reason: str, message: str) -> None:
        with self._lock:
            if not self._over:
                self._over = True
                self._record(reason, message)
        if self._world.size > 1:
            self._store.set(TOLD, reason)

    def _watch(self) -> None:
        while not self._over:
            try:
                heard = self._store.check([FAILURE])
            except RuntimeError:
                return
            if heard:
                failure = json.loads(self._store.get(FAILURE))
                self._write(failure["reason"], failure["message"])
                print(failure["message"], file=sys.stderr, flush=True)
                os._exit(1)
            time.sleep(POLL_SECONDS)
