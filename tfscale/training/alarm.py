"""Reports of failures, made by the failing rank before any process exits.

A rank that fails leaves the others waiting in a collective call, so it cannot reach them that way. Instead, it writes a
report to the key-value store through which all ranks have connected. A thread of the leading rank polls the store,
writes the stage's `end` event, and ends its process; torchrun ends the rest.
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
    """Reporter of failures from any rank to the stage's record."""

    def __init__(self, world: Ranks, record: Callable[[str, str], None]) -> None:
        """
        Args:
            record: function that writes an `end` event with a reason and a message; called on the leading rank only.
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
        # A shared connection would block while another thread's call waits.
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=60))
        return PrefixStore(f"tfscale/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)

    def ring(self, reason: str, message: str) -> None:
        """Report a failure. Return when the stage's record contains it, or when the leading rank does not answer."""
        if self._world.leads:
            self._write(reason, message)
            return
        failure = {"reason": reason, "message": f"rank {self._world.rank}: {message}"}
        end = time.monotonic() + PATIENCE_SECONDS
        with suppress(RuntimeError):  # the process that holds the store has ended, and reported the failure if it could
            self._store.set(FAILURE, json.dumps(failure))
            while not self._store.check([TOLD]) and time.monotonic() < end:
                time.sleep(POLL_SECONDS)

    def rung(self) -> bool:
        """Return whether a rank has reported a failure. Later errors on this rank may then be consequences of it."""
        if self._world.size == 1:
            return False
        try:
            return bool(self._store.check([FAILURE]) or self._store.check([TOLD]))
        except RuntimeError:  # the process that holds the store has ended
            return False

    def leave(self) -> None:
        """Release the other ranks without an event. The leading rank calls this when another process holds the
        stage."""
        if self._world.size > 1:
            self._store.set(TOLD, "")

    def stop(self) -> None:
        """Stop watching, because the stage has ended without a failure."""
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
