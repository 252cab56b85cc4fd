"""What was found of files that have not changed since."""

import hashlib
import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tfscale.files import write_atomically

LARGE = 1 << 26
"""Bytes. Fewer are read again in a moment, and nothing is remembered of them."""
SETTLED_SECONDS = 2.0
"""A file that was written less long ago may still change without its time changing: some file systems count in
seconds."""


class Finding:
    """What was found in reading some files, for as long as their paths, sizes, times and inodes stay as they are.

    It is kept in a file of `folder` named after them, so that tens of gigabytes are not hashed for every look at a
    plan. None of a `folder`, or less than 64 MiB: nothing is kept.
    """

    def __init__(self, folder: Path | None, files: Sequence[Path], kind: str = "") -> None:
        """Looks the files up.

        Args:
            kind: of the finding, where there are several of the same files.

        Raises:
            OSError: a file is not there.
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
        """None: not known, or no longer true."""
        try:
            value = self._path.read_bytes() if self._path else b""
        except OSError:
            return None
        return value.decode() if re.fullmatch(rb"[0-9a-f]{64}", value) else None

    def keep(self, value: str) -> None:
        """Remembers what was found, a SHA-256, if the files had their present state for long enough. A folder that
        cannot be written is no fault: the files are then read again."""
        if self._path is None or not self._settled:
            return
        with suppress(OSError):
            write_atomically(self._path, value.encode())
