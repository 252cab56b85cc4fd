"""A file beside the runs that says what a tracker has been sent, so that it need not be asked.

The tracker itself says what it has: a cursor that is lost, or older than the tracker, costs time and nothing else.
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
    """Digest of the run's sources as they were then."""


class Cursor:
    """The runs of one experiment that have arrived at one tracker, by identity."""

    def __init__(self, tracker: Tracker, experiment: str) -> None:
        name = hashlib.sha256(f"{tracker.uri}\n{experiment}".encode()).hexdigest()[:16]
        self.path = tracker.folder / f"{name}.json"
        self.sent: dict[str, Sent] = {}
        self._head = {"store": tracker.shown, "experiment": experiment}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait until no other process syncs the same, and read what is on disk. A file that cannot be read counts as
        missing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_suffix(".lock")):
            try:
                runs = read_object(self.path)["runs"]
                self.sent = {identity: Sent(**sent) for identity, sent in runs.items()}
            except (ValueError, TypeError, KeyError, AttributeError):
                self.sent = {}
            yield

    def write(self) -> None:
        """Replace what is on disk."""
        write_json(self.path, {**self._head, "runs": {identity: asdict(sent) for identity, sent in self.sent.items()}})
