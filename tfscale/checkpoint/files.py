"""Small files, digests, and what reaches the disk."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tfscale.checkpoint.contents import BrokenCheckpoint
from tfscale.host import cores

Entry = dict[str, Any]
"""Bytes and SHA-256 of a file."""
Entries = dict[str, Entry]
"""By the file's name: what a manifest holds."""
HASHED_AT_ONCE = 8


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        BrokenCheckpoint: it cannot be read, or holds no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenCheckpoint(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise BrokenCheckpoint(f"{path}: not a JSON object")
    return values


class Described:
    """What the manifest says of files: each is synced and hashed as soon as it is written, beside what goes on."""

    def __enter__(self) -> "Described":
        self._pool = ThreadPoolExecutor(min(HASHED_AT_ONCE, cores()))
        self._entries: dict[str, Future[Entry]] = {}
        return self

    def __exit__(self, *fault: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, file: Path) -> None:
        """Begins with a file that has been written."""
        self._entries[file.name] = self._pool.submit(_describe, file)

    def entries(self) -> Entries:
        """Of all files, when the last is on the disk.

        Raises:
            OSError: a file did not reach it.
        """
        return {name: entry.result() for name, entry in sorted(self._entries.items())}


def describe(files: Iterable[Path]) -> Entries:
    """Syncs files, and says what the manifest says of them.

    Raises:
        OSError: a file did not reach the disk.
    """
    with Described() as described:
        for file in files:
            described.add(file)
        return described.entries()


def _describe(file: Path) -> Entry:
    sync(file)
    return {"bytes": file.stat().st_size, "sha256": _sha256(file)}


def digests(files: Sequence[Path]) -> list[str]:
    """SHA-256 of each file, several at once."""
    with ThreadPoolExecutor(min(HASHED_AT_ONCE, cores())) as pool:
        return list(pool.map(_sha256, files))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Makes sure that a file, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
