"""Base classes and registry of trackers, which are the stores that runs are mirrored to. The setting `tracking.kind`
selects the tracker. The default is MLflow.

`tfscale.tracking.sync.Session` ensures that each value is stored exactly once in every kind of tracker. A tracker only
needs to report which values it has stored, and to store new values (`docs/extending.md`).
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
    "tracking.kind",
    {
        "mlflow": "tfscale.tracking.mlflow.tracker:MlflowTracker",
        "wandb": "tfscale.tracking.wandb.tracker:WandbTracker",
    },
)


class TrackingError(RuntimeError):
    """Error raised if a sync fails, for example because the tracker cannot be reached or refuses data.

    No data is lost, because the stage folders contain all data and the next sync sends the missing data.
    """


class Sink(ABC):
    """Connection of one process to one experiment of a tracker.

    The methods may raise any exception. The connection is then discarded, and a new connection reads which values have
    arrived.
    """

    @abstractmethod
    def run_ids(self) -> set[str]:
        """Return the IDs of all runs of the experiment, except those that a user has deleted."""

    @abstractmethod
    def open(self, about: About, contents: Contents, parent: str | None) -> str:
        """Find or create the run with the identity `about.identity`, and update its description, settings and corpus.
        Other methods send its points, files, status and model.

        Args:
            parent: ID of the parent run, or None if there is no parent.

        Returns:
            ID of the run.
        """

    def point_key(self, point: Point) -> Hashable:
        """Return the key that identifies a metric value within a run. Several values with the same key are
        distinguished by their order.

        Values of steps that are repeated after a resume have the same keys as before. Repeated evaluations of a
        finished model have different keys.
        """
        return point.name, point.over, point.at, point.time if is_evaluation(point.name) else 0

    @abstractmethod
    def stored_counts(self, run_id: str) -> Counter[Hashable]:
        """Return, for each key of metric values (`point_key`), how many values the tracker has stored for a run."""

    @abstractmethod
    def send(self, run_id: str, points: Sequence[Point]) -> None:
        """Add metric values, which the tracker has not stored yet, to a run."""

    @abstractmethod
    def send_file(self, run_id: str, file: Artifact) -> None:
        """Add a file to a run, or replace an existing file with the same name."""

    @abstractmethod
    def finish(self, run_id: str, contents: Contents) -> None:
        """Set the status and end time of a run whose points have all been sent, and add the model if the stage is
        finished."""


class Tracker(ABC):
    """Base class of trackers. A tracker stores runs, and may be unreachable.

    Args:
        runs: runs folder.
        uri: value of `tracking.uri`, or None if it is not set.

    Raises:
        ValueError: the URI is invalid for this tracker. The message starts with `tracking.uri=`.
    """

    title: ClassVar[str]
    """Name of the tracker in messages, such as MLflow."""

    def __init__(self, runs: Path, uri: str | None) -> None:
        self.uri = uri or ""
        self.folder = runs.resolve() / "tracking"
        """Folder of the cursor files, which record the data sent for each experiment."""

    def __str__(self) -> str:
        return f"{self.title} at {self.shown}"

    @property
    def shown(self) -> str:
        """URI of the store, without its password."""
        return without_password(self.uri)

    @abstractmethod
    def connect(self, experiment: str) -> Sink:
        """Return a connection to an experiment, and create the experiment if it is missing. Subclasses should import
        their client library in this method."""

    def exists(self) -> bool:
        """Return False if the store is known not to exist, for example before the first run. Otherwise, return True."""
        return True

    def lacks(self, run_ids: set[str]) -> bool:
        """Return True if any of the runs `run_ids`, which were sent earlier, is known to be missing from the store.
        This method is called before each sync and must be fast; a tracker that can only be queried over a network
        returns False."""
        return False

    def unreachable(self) -> str | None:
        """Return the reason why the tracker is unreachable, or None if it is reachable or cannot be checked.

        `tfscale doctor` calls this method.
        """
        return None
