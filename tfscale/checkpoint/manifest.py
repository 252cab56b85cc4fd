"""manifest.json: size and SHA-256 of every other file of a checkpoint."""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tfscale.checkpoint.contents import MANIFEST_FILE, BrokenCheckpoint
from tfscale.files import HASHED_AT_ONCE, read_object, sha256_of, sync
from tfscale.host import cores
from tfscale.untrusted import check_file_name

Entry = dict[str, Any]
"""Size in bytes and SHA-256 of a file, under the keys `bytes` and `sha256`."""
Entries = dict[str, Entry]
"""Entries of a checkpoint's manifest, by file name."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a checkpoint. Raise BrokenCheckpoint if the file is missing or not valid."""
    try:
        return read_object(path)
    except ValueError as error:
        raise BrokenCheckpoint(str(error)) from error


def read_manifest(folder: Path) -> Entries:
    """Return the entries of a checkpoint's manifest. Raise BrokenCheckpoint if the manifest is missing or not valid."""
    path = folder / MANIFEST_FILE
    manifest = read_json(path)
    for name, entry in manifest.items():
        try:
            check_file_name(name)
        except ValueError as error:
            raise BrokenCheckpoint(f"{path}: {error}") from error
        if not isinstance(entry, dict) or not entry.keys() >= {"bytes", "sha256"}:
            raise BrokenCheckpoint(f"{path}: the entry of {name} must have a size and a SHA-256")
    return manifest


class Described:
    """Collector of manifest entries. The collector syncs and hashes files in threads."""

    def __enter__(self) -> "Described":
        self._pool = ThreadPoolExecutor(min(HASHED_AT_ONCE, cores()))
        self._entries: dict[str, Future[Entry]] = {}
        return self

    def __exit__(self, *fault: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, file: Path) -> None:
        """Start syncing and hashing a file that has been written completely."""
        self._entries[file.name] = self._pool.submit(_describe, file)

    def entries(self) -> Entries:
        """Wait until all files are on the disk, and return their entries. Raise OSError if a file cannot be synced."""
        return {name: entry.result() for name, entry in sorted(self._entries.items())}


def describe(files: Iterable[Path]) -> Entries:
    """Sync files to the disk, and return their entries for the manifest."""
    with Described() as described:
        for file in files:
            described.add(file)
        return described.entries()


def _describe(file: Path) -> Entry:
    sync(file)
    return {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
