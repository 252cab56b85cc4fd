"""Search for files that a store no longer needs, and verification of the files in a store."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from tfscale.store.contents import Snapshot, snapshots, superseded
from tfscale.store.remote import Damaged, Store
from tfscale.store.snapshot import MANIFEST_FILE, read_manifest

SPARED = timedelta(days=1)
"""Minimum age at which a file that no manifest names is removed. Younger files may belong to an upload in progress."""


@dataclass(frozen=True)
class Waste:
    """File that a store no longer needs, with its size in bytes and the reason."""

    path: str
    bytes: int
    reason: str


def find_waste(store: Store, now: datetime | None = None) -> list[Waste]:
    """Return the files that a store no longer needs, in an order in which they can be removed: outdated snapshots of
    stages, and files of incomplete uploads that are older than a day.

    Args:
        now: current time, or None for the time of this machine.

    Raises:
        Damaged: a manifest is invalid.
    """
    everything = snapshots(store)
    by_item = (list(found) for _, found in groupby(everything, lambda snapshot: snapshot.item))
    old = [snapshot for found in by_item for snapshot in superseded(found)]
    waste = [
        Waste(path, snapshot.files[path.rpartition("/")[2]], "the store has a newer snapshot of the stage")
        for snapshot in old
        for path in snapshot.paths
    ]
    latest = (now or datetime.now(UTC)) - SPARED
    for snapshot in everything:
        for path in _unnamed(store, snapshot) if snapshot not in old else ():
            written = store.modified(path)
            if written is not None and written.replace(tzinfo=written.tzinfo or UTC) < latest:
                waste.append(Waste(path, snapshot.files[path.rpartition("/")[2]], "an upload did not complete"))
    return waste


def _unnamed(store: Store, snapshot: Snapshot) -> list[str]:
    named = {MANIFEST_FILE}
    if snapshot.complete:
        named |= {entry.sha256 for entry in read_manifest(store, snapshot.path).files}
    return [f"{snapshot.path}/{name}" for name in snapshot.files if name not in named]


def verify(store: Store, snapshot: Snapshot) -> Iterator[str]:
    """Read every file of a complete snapshot, and yield a message for each file that is missing or damaged."""
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
