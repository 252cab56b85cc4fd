"""Leases of stages, so that machines that share a store do not train the same stage at the same time.

    URI/leases/<stage>    JSON: the owner, which is a random name, and the time at which the lease ends

A lease is advisory. If a lease is lost, two machines may train the same stage, and the work of one machine is wasted.
"""

import json
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread

from tfscale.files import write_atomically
from tfscale.stage.folder import Stage
from tfscale.stage.lock import StageHeld
from tfscale.store.contents import DONE, STAGES, newest, snapshots
from tfscale.store.remote import Store, StoreError
from tfscale.store.snapshot import WORK
from tfscale.store.stages import pull_stage

LEASES = "leases"
LEASE_SECONDS = 120.0
"""Time in seconds from the last renewal to the end of a lease."""
RENEW_SECONDS = 30.0
POLL_SECONDS = 10.0
"""Minimum time in seconds between two checks of the store for a stage whose lease this machine does not hold."""


@dataclass(frozen=True)
class Lease:
    """Content of a lease file."""

    owner: str
    until: float
    """Time at which the lease ends, in seconds since 1970."""


class Leases:
    """Leases of the stages that are trained in one runs folder. A background thread renews the leases until `close` is
    called."""

    def __init__(self, store: Store, runs: Path) -> None:
        """Start the thread that renews the leases. No lease is taken yet.

        Raises:
            OSError: the runs folder cannot be written.
        """
        self._store, self._owner = store, _owner(runs)
        self._held: set[str] = set()
        self._looks: dict[str, tuple[float, str | None]] = {}
        self._stopping = Event()
        self._thread = Thread(target=self._renew, name="leases", daemon=True)
        self._thread.start()

    def claim(self, stage: Stage) -> str | None:
        """Take the lease of a stage unless another machine holds it. After taking the lease, download the newest
        snapshot of the stage if the snapshot is more advanced than the stage on this machine. If the stage is finished
        in the store, download it without taking the lease. The store is checked at most once per POLL_SECONDS for each
        stage. Calls between two checks return the result of the previous check.

        Returns:
            A description of the other machine that holds the lease, or None if the stage can be trained on this machine
            or is finished. Also None after an error, because errors of the store must not prevent training.
        """
        name = stage.path.name
        if name in self._held:
            return None
        next_look, holder = self._looks.get(name, (0.0, None))
        if time.monotonic() >= next_look:
            holder = None
            with suppress(StoreError, StageHeld, OSError):
                holder = self._look(stage)
            self._looks[name] = time.monotonic() + POLL_SECONDS, holder
        return holder

    def _look(self, stage: Stage) -> str | None:
        name = stage.path.name
        best = newest(snapshots(self._store, f"{STAGES}/{name}"))
        if best is None or best.name != DONE:
            there = self._read(name)
            left = there.until - time.time() if there is not None else 0.0
            if there is not None and there.owner != self._owner and left > 0:
                return f"another machine, whose lease in the store ends in {left:.0f} s unless it is renewed"
            if there is not None:
                self._store.remove([f"{LEASES}/{name}"])
            self._store.create(f"{LEASES}/{name}", self._content())
            mine = self._read(name)
            if mine is not None and mine.owner != self._owner:
                return "another machine, which took the lease in the store at the same time"
            self._held.add(name)
        pull_stage(self._store, stage.path, stage.spec)
        return None

    def close(self) -> None:
        """Stop renewing the leases, and remove them from the store so that other machines can take them."""
        self._stopping.set()
        self._thread.join()
        for name in self._held:
            with suppress(StoreError):
                there = self._read(name)
                if there is not None and there.owner == self._owner:
                    self._store.remove([f"{LEASES}/{name}"])

    def _renew(self) -> None:
        while not self._stopping.wait(RENEW_SECONDS):
            for name in list(self._held):
                with suppress(StoreError):
                    there = self._read(name)
                    if there is None or there.owner == self._owner:
                        self._store.write(f"{LEASES}/{name}", self._content())
                    else:  # this machine slept until the lease ended, and another machine has taken it
                        self._held.discard(name)

    def _read(self, name: str) -> Lease | None:
        if name not in self._store.files(LEASES):
            return None
        try:
            values = json.loads(self._store.read(f"{LEASES}/{name}"))
            return Lease(str(values["owner"]), float(values["until"]))
        except (ValueError, TypeError, LookupError):
            return None

    def _content(self) -> bytes:
        return json.dumps(asdict(Lease(self._owner, time.time() + LEASE_SECONDS))).encode()


def _owner(runs: Path) -> str:
    """Return the name under which a runs folder owns leases. The name is random and is stored in the runs folder, so
    that a command that is started again keeps its leases."""
    path = runs / WORK / "owner"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, secrets.token_hex(8).encode())
    return path.read_text(encoding="utf-8")
