"""Remember the hash of large files for as long as they do not change."""

import hashlib
import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tfscale.files import write_atomically

LARGE = 1 << 26
"""Size in bytes below which files are read again instead, which takes a moment."""
SETTLED_SECONDS = 2.0
"""A file that was written more recently may still change without its time changing, because some file systems count in
whole seconds."""


class Finding:
    """A SHA-256 that was found in reading some files, valid while their paths, sizes, times and inodes stay the same.

    It is kept in a file of `folder` named after them, so that tens of gigabytes are not hashed each time a
    plan is shown. Nothing is kept if `folder` is None or the files have less than 64 MiB.
    """

    def __init__(self, folder: Path | None, files: Sequence[Path], kind: str = "") -> None:
        """Look the files up.

        Args:
            kind: name that distinguishes findings about the same files.

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
        """The hash, or None if it is not known or no longer valid."""
        try:
            value = self._path.read_bytes() if self._path else b""
        except OSError:
            return None
        return value.decode() if re.fullmatch(rb"[0-9a-f]{64}", value) else None

    def keep(self, value: str) -> None:
        """Remember the hash, if the files have been unchanged for long enough. If the folder cannot be written, the
        files are read again the next time."""
        if self._path is None or not self._settled:
            return
        with suppress(OSError):
            write_atomically(self._path, value.encode())
