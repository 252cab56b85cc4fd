"""Trackers: stores that runs are mirrored to. `tracking.kind` names the class, MLflow's by default.

`tfscale.tracking.sync.Session` sees to what must hold of every tracker, above all that each value arrives exactly once.
A tracker only says what it has and takes what it lacks. To add one, register a subclass of `Tracker` that connects to a
subclass of `Sink`:

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
    """A tracker could not be reached, or refused; the message names it.

    Nothing is lost: the stage folders hold everything, and the next sync sends what is missing.
    """


class Sink(ABC):
    """One process's connection to one experiment of a tracker.

    Its methods may raise any exception: the connection is dropped then, and a new one reads what has arrived.
    """

    @abstractmethod
    def run_ids(self) -> set[str]:
        """Return the ids of all runs of the experiment, except those that a user has deleted."""

    @abstractmethod
    def open(self, about: About, contents: Contents, parent: str | None) -> str:
        """Find the run with this `about.identity` or create it, and bring everything but its points, its files and its
        status up to date.

        Args:
            parent: id of the run that this one is a child of.

        Returns:
            The run's id.
        """

    def place(self, point: Point) -> Hashable:
        """Return what identifies a value within its run. Points with the same place are told apart by their order.

        Steps that were repeated after a resume have the places of the first ones. A finished model that is evaluated
        again has another value.
        """
        return point.name, point.over, point.at, point.time if is_evaluation(point.name) else 0

    @abstractmethod
    def held(self, run_id: str) -> Counter[Hashable]:
        """Return how many values a run has at each place."""

    @abstractmethod
    def send(self, run_id: str, points: Sequence[Point]) -> None:
        """Add values to a run, which does not have them yet."""

    @abstractmethod
    def send_file(self, run_id: str, file: Artifact) -> None:
        """Add a file to a run, or replace it."""

    @abstractmethod
    def finish(self, run_id: str, contents: Contents) -> None:
        """Set a run's status and end, and add the model of a finished stage. All points have been sent by then."""


class Tracker(ABC):
    """A store of runs that may be away.

    Args:
        runs: the runs folder.
        uri: `tracking.uri`; None where the user has named none.

    Raises:
        ValueError: the URI cannot be one of this tracker's. The message begins with `tracking.uri=`.
    """

    title: ClassVar[str]
    """Name of the tracker in messages, such as MLflow."""

    def __init__(self, runs: Path, uri: str | None) -> None:
        self.uri = uri or ""
        self.folder = runs.resolve() / "tracking"
        """Keeps one file per experiment that says what was sent."""

    def __str__(self) -> str:
        return f"{self.title} at {self.shown}"

    @property
    def shown(self) -> str:
        """The URI without its password."""
        return without_password(self.uri)

    @abstractmethod
    def connect(self, experiment: str) -> Sink:
        """Return a connection to an experiment, which is created if it is missing. Import the client library here."""

    def exists(self) -> bool:
        """Return False if the store is known to be missing, as before the first run."""
        return True

    def lacks(self, run_ids: set[str]) -> bool:
        """Return True if runs that were sent are known to be gone. This is asked before each sync and must be fast; a
        tracker that can only be asked over a network says False."""
        return False

    def unreachable(self) -> str | None:
        """Return why the tracker cannot be reached, or None if it can or is not known to be away. `tfscale doctor` asks
        this."""
        return None


def tracker_at(kind: str, runs: Path, uri: str | None) -> Tracker:
    """Return the tracker of a kind for a runs folder.

    Raises:
        ValueError: there is no such kind, or the URI is malformed.
    """
    return TRACKERS.get(kind)(runs, uri)
