"""Cursor file in the runs folder, which records the data sent to a tracker so that the tracker need not be queried.

The tracker is authoritative. A missing or outdated cursor only makes the next sync slower.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from tfscale.files import read_object, write_json
from tfscale.tracking.lock import locked
from tfscale.tracking.tracker import Tracker


@dataclass(frozen=True)
class Sent:
    """Record of a run that the tracker has received completely."""

    run_id: str
    mark: str
    """Digest of the source files of the run when it was sent."""


class Cursor:
    """Record of the runs of one experiment that one tracker has received completely, by the identity of the run."""

    def __init__(self, tracker: Tracker, experiment: str) -> None:
        name = hashlib.sha256(f"{tracker.uri}\n{experiment}".encode()).hexdigest()[:16]
        self.path = tracker.folder / f"{name}.json"
        self.sent: dict[str, Sent] = {}
        self._head = {"store": tracker.shown, "experiment": experiment}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the experiment, so that no other process syncs it, and read the cursor file. An unreadable file is
        treated as missing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_suffix(".lock")):
            try:
                runs = read_object(self.path)["runs"]
                self.sent = {identity: Sent(**sent) for identity, sent in runs.items()}
            except (ValueError, TypeError, KeyError, AttributeError):
                self.sent = {}
            yield

    def write(self) -> None:
        """Write the records of the received runs to the cursor file."""
        write_json(self.path, {**self._head, "runs": {identity: asdict(sent) for identity, sent in self.sent.items()}})
