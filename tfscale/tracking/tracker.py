"""Trackers, the stores that runs are mirrored to. `tracking.kind` names the class, by default that of MLflow.

`tfscale.tracking.sync.Session` ensures what must be true for every tracker, above all that each value arrives exactly
once. A tracker only reports what it has and accepts what it lacks. To add one, register a subclass of `Tracker` that
connects to a subclass of `Sink`:

    @TRACKERS.register("jsonl")
    class JsonLinesTracker(Tracker): ...
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import ClassVar

from tfscale.faults import without_password
from tfscale.registry import Registry
from tfscale.tracking.points import Point, is_evaluation
from tfscale.tracking.runs import About, Artifact, Contents

TRACKERS: Registry[type["Tracker"]] = Registry(
    "tracking.kind", {"mlflow": "tfscale.tracking.mlflow.tracker:MlflowTracker"}
)


class TrackingError(RuntimeError):
    """Raised when a tracker cannot be reached or refuses; the message names the tracker.

    No data is lost: the stage folders contain everything, and the next sync sends what is missing.
    """


class Sink(ABC):
    """A connection of one process to one experiment of a tracker.

    The methods may raise any exception; the connection is then dropped, and a new one reads what has arrived.
    """

    @abstractmethod
    def run_ids(self) -> set[str]:
        """Return the IDs of all runs of the experiment, except those that a user has deleted."""

    @abstractmethod
    def open(self, about: About, contents: Contents, parent: str | None) -> str:
        """Find or create the run with the identity `about.identity`, and update everything except its points, files and
        status.

        Args:
            parent: ID of the parent run; None if there is none.

        Returns:
            The ID of the run.
        """

    def place(self, point: Point) -> Hashable:
        """Return the place of a value, which identifies it in its run. Order distinguishes points of the same place.

        Steps that are repeated after a resume have the same places as before. Another evaluation of a finished model
        has another place.
        """
        return point.name, point.over, point.at, point.time if is_evaluation(point.name) else 0

    @abstractmethod
    def held(self, run_id: str) -> Counter[Hashable]:
        """Return the number of values that a run has at each place."""

    @abstractmethod
    def send(self, run_id: str, points: Sequence[Point]) -> None:
        """Add values to a run that does not have them yet."""

    @abstractmethod
    def send_file(self, run_id: str, file: Artifact) -> None:
        """Add a file to a run, or replace the file."""

    @abstractmethod
    def finish(self, run_id: str, contents: Contents) -> None:
        """Set a run's status and end time, and add the model of a finished stage. All points have already been sent."""


class Tracker(ABC):
    """A store of runs, which may be unreachable.

    Args:
        runs: runs folder.
        uri: value of `tracking.uri`; None if it is not set.

    Raises:
        ValueError: the URI is invalid for this tracker. The message begins with `tracking.uri=`.
    """

    title: ClassVar[str]
    """Name of the tracker in messages, such as MLflow."""

    def __init__(self, runs: Path, uri: str | None) -> None:
        self.uri = uri or ""
        self.folder = runs.resolve() / "tracking"
        """Folder with one file per experiment that records what was sent."""

    def __str__(self) -> str:
        return f"{self.title} at {self.shown}"

    @property
    def shown(self) -> str:
        """URI of the store, without its password."""
        return without_password(self.uri)

    @abstractmethod
    def connect(self, experiment: str) -> Sink:
        """Return a connection to an experiment, which is created if missing. Import the client library here."""

    def exists(self) -> bool:
        """Return False if the store is known to be missing, as before the first run."""
        return True

    def lacks(self, run_ids: set[str]) -> bool:
        """Return True if runs that were sent are known to be gone. This is called before each sync and must be fast; a
        tracker that can only be queried over a network returns False."""
        return False

    def unreachable(self) -> str | None:
        """Return why the tracker is unreachable; None if it is reachable or this is unknown.

        `tfscale doctor` calls this method.
        """
        return None


def tracker_at(kind: str, runs: Path, uri: str | None) -> Tracker:
    """Return the tracker of a kind for a runs folder.

    Raises:
        ValueError: the kind is unknown, or the URI is malformed.
    """
    return TRACKERS.get(kind)(runs, uri)
