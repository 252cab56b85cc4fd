"""What was mirrored already, kept beside the runs.

The store itself says what it holds; a cursor only spares asking it. So one that is lost, or older than the store,
costs time and nothing else.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

from tfscale.tracking.store import Store


@dataclass(frozen=True)
class Sent:
    """A run that had arrived whole."""

    run_id: str
    mark: str
    """Of the run's sources as they were then."""


class Cursor:
    """The runs of one experiment in one store that have arrived, by identity."""

    def __init__(self, store: Store, experiment: str) -> None:
        name = hashlib.sha256(f"{store.uri}\n{experiment}".encode()).hexdigest()[:16]
        self.path = store.folder / f"{name}.json"
        self.sent: dict[str, Sent] = {}
        self._head = {"store": store.shown, "experiment": experiment}

    def read(self) -> None:
        """Takes up what is on disk; a file that cannot be read counts as none."""
        try:
            runs = json.loads(self.path.read_text(encoding="utf-8"))["runs"]
            self.sent = {identity: Sent(**sent) for identity, sent in runs.items()}
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            self.sent = {}

    def write(self) -> None:
        """Replaces what is on disk at one stroke."""
        runs = {identity: asdict(sent) for identity, sent in self.sent.items()}
        aside = self.path.with_suffix(".writing")
        aside.write_text(json.dumps({**self._head, "runs": runs}, indent=1) + "\n", encoding="utf-8")
        aside.replace(self.path)
