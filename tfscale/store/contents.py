"""Listing of the stages and corpora in a store."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from tfscale.store.remote import Store
from tfscale.store.snapshot import MANIFEST_FILE

STAGES = "stages"
DATA = "data"
DONE = "done"
"""Snapshot of a finished stage or corpus. That of an unfinished stage is named `step-*`, like its checkpoint."""


@dataclass(frozen=True)
class Snapshot:
    """Files of a stage or corpus in a store, as they were at one time."""

    item: str
    """Stage or corpus, as `stages/<name>` or `data/<fingerprint>`."""
    name: str
    """Name of the snapshot, which is `done` or `step-*`."""
    files: dict[str, int]
    """Sizes in bytes by name."""

    @property
    def path(self) -> str:
        """Folder of the snapshot in the store."""
        return f"{self.item}/{self.name}"

    @property
    def paths(self) -> list[str]:
        """Paths of the files in the store, the manifest first. If the files are removed in this order, a partially
        removed snapshot is never considered complete."""
        return [f"{self.path}/{name}" for name in sorted(self.files, key=lambda name: name != MANIFEST_FILE)]

    @property
    def complete(self) -> bool:
        """True if the snapshot has its manifest, and therefore all files."""
        return MANIFEST_FILE in self.files

    @property
    def bytes(self) -> int:
        return sum(self.files.values())


def snapshots(store: Store, folder: str = "") -> list[Snapshot]:
    """Return the snapshots in a store, or in one of its folders, in the order of their paths."""
    found = sorted(store.files(folder).items())
    parts = [(tuple(f"{folder}/{path}".lstrip("/").split("/")), size) for path, size in found]
    ours = [each for each in parts if len(each[0]) == 4 and each[0][0] in (STAGES, DATA)]
    return [
        Snapshot(f"{kind}/{name}", snapshot, {path[3]: size for path, size in files})
        for (kind, name, snapshot), files in groupby(ours, lambda each: each[0][:3])
    ]


def progress(name: str) -> tuple[bool, str]:
    """Return a sort key that orders the names of a stage's snapshots by the progress of the stage: `done` is last."""
    return name == DONE, name


def newest(found: Iterable[Snapshot]) -> Snapshot | None:
    """Return the most advanced complete snapshot of a stage or corpus, or None if no snapshot is complete."""
    complete = [snapshot for snapshot in found if snapshot.complete]
    return max(complete, key=lambda snapshot: progress(snapshot.name), default=None)


def superseded(found: Sequence[Snapshot]) -> list[Snapshot]:
    """Return all complete snapshots of a stage except the most advanced one (`newest`)."""
    best = newest(found)
    return [snapshot for snapshot in found if snapshot.complete and snapshot != best]
