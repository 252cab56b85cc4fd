"""Functions that lock files, replace files atomically, read and write JSON objects, and compute or cache SHA-256
digests."""

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tfscale.host import cores

HASHED_AT_ONCE = 8
"""Maximum number of files that are hashed at the same time."""
LARGE = 1 << 26
"""Minimum total size in bytes of files whose hash is cached."""
SETTLED_SECONDS = 2.0
"""Minimum age in seconds of files whose hash is cached. A file that was modified more recently may change again without
a new modification time, because some file systems store times in whole seconds."""


def write_atomically(path: Path, content: bytes) -> None:
    """Create or replace a file atomically: write the content under a temporary name, sync it to disk, and rename it to
    `path`. A missing folder is created.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged. The attribute `filename` of the error is
            `path`.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a dictionary to a file as indented JSON, atomically (`write_atomically`)."""
    write_atomically(path, (json.dumps(values, indent=2) + "\n").encode())


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file as a dictionary.

    Raises:
        ValueError: the file is missing, unreadable or not a JSON object; the message names the file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: is not a JSON object")
    return values


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder next to `path`. Rename the folder to `path` if the `with` block succeeds, otherwise remove
    it."""
    aside = path.with_name(f".{path.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created if missing, until the `with` block or the process ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sync(path: Path) -> None:
    """Wait until the content of a file, or the list of files in a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 digest of a file's content as a hexadecimal string."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def sha256_of_all(paths: Sequence[Path]) -> list[str]:
    """Return the SHA-256 digests of files as hexadecimal strings, in the order of `paths`. Up to HASHED_AT_ONCE files
    are hashed in parallel by threads, because hashing releases the GIL."""
    with ThreadPoolExecutor(min(HASHED_AT_ONCE, cores())) as threads:
        return list(threads.map(sha256_of, paths))


class CachedDigest:
    """Cached hash of a list of files. The hash is valid until the path, size, modification time or inode of a file
    changes.

    The hash is stored in `folder`, in a file whose name is derived from these attributes, so that large corpora are not
    hashed again each time a plan is shown. Nothing is stored if `folder` is None, or if the files have less than 64 MiB
    in total.
    """

    def __init__(self, folder: Path | None, files: Sequence[Path], kind: str = "") -> None:
        """Read size, modification time and inode of each file. The text `kind` distinguishes hashes of the same files.

        Raises:
            OSError: a file does not exist.
        """
        states = [(file, file.stat()) for file in files]
        state: list[list[object]] = [[str(at.absolute()), it.st_size, it.st_mtime_ns, it.st_ino] for at, it in states]
        state += [[kind]] if kind else []
        settled = max((it.st_mtime for _, it in states), default=0.0) < time.time() - SETTLED_SECONDS
        large = sum(it.st_size for _, it in states) >= LARGE
        self._path = folder / hashlib.sha256(json.dumps(state).encode()).hexdigest() if folder and large else None
        self._settled = settled

    @property
    def value(self) -> str | None:
        """Cached SHA-256 of the files, or None if no valid hash is stored."""
        try:
            value = self._path.read_bytes() if self._path else b""
        except OSError:
            return None
        return value.decode() if re.fullmatch(rb"[0-9a-f]{64}", value) else None

    def keep(self, value: str) -> None:
        """Store the hash. Nothing is stored if a file was modified less than SETTLED_SECONDS before its attributes were
        read, or if the folder is not writable."""
        if self._path is None or not self._settled:
            return
        with suppress(OSError):
            write_atomically(self._path, value.encode())
