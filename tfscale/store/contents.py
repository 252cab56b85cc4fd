"""Functions that list the stages and corpora in a store, find files that the store no longer needs, and verify
snapshots."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from tfscale.store.remote import Damaged, Store
from tfscale.store.snapshot import MANIFEST_FILE, read_manifest

STAGES = "stages"
DATA = "data"
DONE = "done"
"""Name of the snapshot of a finished stage or a corpus. The snapshot of an unfinished stage is named after the
checkpoint that it contains, `step-*`."""
SPARED = timedelta(days=1)
"""Minimum age at which a file that no manifest names is removed. Younger files may belong to an upload in progress."""


@dataclass(frozen=True)
class Snapshot:
    """Listing of a snapshot in a store. A snapshot contains the files of a stage or corpus as they were at one point in
    time."""

    item: str
    """Folder of the stage or corpus in the store, which is `stages/<name>` or `data/<fingerprint>`."""
    name: str
    """Name of the snapshot, which is `done` or `step-*`."""
    files: dict[str, int]
    """Size in bytes of each file of the snapshot, keyed by the name of the file."""

    @property
    def path(self) -> str:
        """Folder of the snapshot in the store."""
        return f"{self.item}/{self.name}"

    @property
    def paths(self) -> dict[str, int]:
        """Size in bytes of each file of the snapshot, keyed by the path of the file in the store. The manifest
        is first. If the files are removed in this order, a partially removed snapshot is never considered complete."""
        names = sorted(self.files, key=lambda name: name != MANIFEST_FILE)
        return {f"{self.path}/{name}": self.files[name] for name in names}

    @property
    def complete(self) -> bool:
        """True if the snapshot has its manifest, and therefore all files."""
        return MANIFEST_FILE in self.files

    @property
    def bytes(self) -> int:
        return sum(self.files.values())


def snapshots(store: Store, folder: str = "") -> list[Snapshot]:
    """Return the snapshots in `folder`, by default in the whole store, sorted by path. Incomplete snapshots are
    included."""
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for path, size in sorted(store.files(folder).items()):
        parts = f"{folder}/{path}".lstrip("/").split("/")
        if len(parts) == 4 and parts[0] in (STAGES, DATA):
            kind, item, snapshot, file = parts
            found[f"{kind}/{item}", snapshot][file] = size
    return [Snapshot(item, name, files) for (item, name), files in found.items()]


def progress(name: str) -> tuple[bool, str]:
    """Return a sort key for the name of a snapshot. The key orders the snapshots of a stage from the least to the most
    advanced, with `done` last."""
    return name == DONE, name


def newest(found: Iterable[Snapshot]) -> Snapshot | None:
    """Return the most advanced complete snapshot of a stage or corpus, or None if no snapshot is complete."""
    complete = [snapshot for snapshot in found if snapshot.complete]
    return max(complete, key=lambda snapshot: progress(snapshot.name), default=None)


def superseded(found: Sequence[Snapshot]) -> list[Snapshot]:
    """Return all complete snapshots of a stage except the most advanced one (`newest`)."""
    best = newest(found)
    return [snapshot for snapshot in found if snapshot.complete and snapshot != best]


@dataclass(frozen=True)
class Waste:
    """File that a store no longer needs, with its path, its size in bytes, and the reason why it is not needed."""

    path: str
    bytes: int
    reason: str


def find_waste(store: Store, now: datetime | None = None) -> list[Waste]:
    """Return the files that a store no longer needs. These are the files of outdated snapshots of stages, and files
    older than one day that belong to incomplete uploads. Files of incomplete uploads are omitted if the store does not
    record modification times. The files can be removed in the returned order, because the manifest of a snapshot comes
    before its other files.

    Args:
        now: current time, or None for the time of this machine.

    Raises:
        Damaged: a manifest is invalid.
    """
    everything = snapshots(store)
    by_item = (list(found) for _, found in groupby(everything, lambda snapshot: snapshot.item))
    old = [snapshot for found in by_item for snapshot in superseded(found)]
    reason = "the store has a newer snapshot of the stage"
    waste = [Waste(path, size, reason) for snapshot in old for path, size in snapshot.paths.items()]
    latest = (now or datetime.now(UTC)) - SPARED
    for snapshot in everything:
        if snapshot in old:
            continue
        entries = read_manifest(store, snapshot.path).files if snapshot.complete else ()
        named = {f"{snapshot.path}/{name}" for name in (MANIFEST_FILE, *(entry.sha256 for entry in entries))}
        for path, size in snapshot.paths.items():
            written = store.modified(path) if path not in named else None
            if written is not None and written.replace(tzinfo=written.tzinfo or UTC) < latest:
                waste.append(Waste(path, size, "an upload did not complete"))
    return waste


def verify(store: Store, snapshot: Snapshot) -> Iterator[str]:
    """Read every file of a complete snapshot, including the manifest, and yield a message for each file that is missing
    or damaged."""
    try:
        manifest = read_manifest(store, snapshot.path)
    except Damaged as damage:
        yield str(damage)
        return
    for entry in manifest.files:
        where = f"{store.shown}/{snapshot.path}: {entry.path}"
        if entry.sha256 not in snapshot.files:
            yield f"{where} is missing"
        elif store.sha256(f"{snapshot.path}/{entry.sha256}") != entry.sha256:
            yield f"{where} differs from its checksum"
