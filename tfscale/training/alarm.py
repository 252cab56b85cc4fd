"""Recording of failures. A failure that a rank reports is recorded as an `end` event before any process exits.

If a rank fails, the other ranks wait in a collective call, so the failure cannot be reported through a collective call.
Instead, the failing rank writes a report to the key-value store through which all ranks have connected. A thread of the
leading rank polls the store, writes the `end` event of the stage, and ends its process; torchrun then ends the other
ranks.
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

from tfscale.checkpoint import Ranks

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 30.0
"""Maximum time in seconds that a failing rank waits for the leading rank to record the failure."""
FAILURE, RECORDED = "failure", "told"


class Alarm:
    """Reporter of failures. Every rank has a reporter, and the leading rank records a reported failure as an `end`
    event.

    Args:
        record: function that writes an `end` event, given a reason and a message. Only the leading rank calls it.
    """

    def __init__(self, world: Ranks, record: Callable[[str, str], None]) -> None:
        self._world, self._record = world, record
        self._lock = threading.Lock()
        self._over = False
        if world.size > 1:
            # With a shared connection, calls would block while a call of another thread waits.
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=60))
            self._store = PrefixStore(f"tfscale/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
            if world.leads:
                threading.Thread(target=self._watch, daemon=True).start()

    def ring(self, reason: str, message: str) -> None:
        """Report a failure. The leading rank records the failure itself. Any other rank waits up to `PATIENCE_SECONDS`
        until the leading rank has recorded the failure."""
        if self._world.leads:
            self._write(reason, message)
            return
        failure = {"reason": reason, "message": f"rank {self._world.rank}: {message}"}
        end = time.monotonic() + PATIENCE_SECONDS
        with suppress(RuntimeError):  # the process with the store has ended, after recording the failure if possible
            self._store.set(FAILURE, json.dumps(failure))
            while not self._store.check([RECORDED]) and time.monotonic() < end:
                time.sleep(POLL_SECONDS)

    def rung(self) -> bool:
        """Return whether any rank has reported a failure, or the leading rank has called `leave`. An error on this rank
        may then be a consequence of the end of another rank. Return False if there is only one rank or if the process
        that hosts the key-value store has ended."""
        if self._world.size == 1:
            return False
        try:
            return bool(self._store.check([FAILURE]) or self._store.check([RECORDED]))
        except RuntimeError:  # the process with the store has ended
            return False

    def leave(self) -> None:
        """End the wait of all ranks in `ring` without recording an event. The leading rank calls this method if another
        process holds the lock of the stage."""
        if self._world.size > 1:
            self._store.set(RECORDED, "")

    def stop(self) -> None:
        """Stop watching for failures. Failures that are reported later are not recorded."""
        self._over = True

    def _write(self, reason: str, message: str) -> None:
        with self._lock:
            if not self._over:
                self._over = True
                self._record(reason, message)
        if self._world.size > 1:
            self._store.set(RECORDED, reason)

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
