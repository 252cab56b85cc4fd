"""Small files, digests, and what reaches the disk."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tfscale.checkpoint.contents import BrokenCheckpoint

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


def digests(files: Sequence[Path]) -> list[str]:
    """SHA-256 of each file, several at once."""
    with ThreadPoolExecutor(min(HASHED_AT_ONCE, os.cpu_count() or 1)) as pool:
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
