"""Cursor: a file in the runs folder that records what a tracker has been sent, so that the tracker need not be asked.

The tracker itself is authoritative: a cursor that is lost or older than the tracker costs only time.
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
    """A run that has arrived completely."""

    run_id: str
    mark: str
    """Digest of the run's sources at the time of sending."""


class Cursor:
    """A record of the runs of one experiment that have arrived at one tracker, by identity."""

    def __init__(self, tracker: Tracker, experiment: str) -> None:
        name = hashlib.sha256(f"{tracker.uri}\n{experiment}".encode()).hexdigest()[:16]
        self.path = tracker.folder / f"{name}.json"
        self.sent: dict[str, Sent] = {}
        self._head = {"store": tracker.shown, "experiment": experiment}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait until no other process syncs the experiment, and read the file. An unreadable file counts as missing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_suffix(".lock")):
            try:
                runs = read_object(self.path)["runs"]
                self.sent = {identity: Sent(**sent) for identity, sent in runs.items()}
            except (ValueError, TypeError, KeyError, AttributeError):
                self.sent = {}
            yield

    def write(self) -> None:
        """Replace the file on disk."""
        write_json(self.path, {**self._head, "runs": {identity: asdict(sent) for identity, sent in self.sent.items()}})
