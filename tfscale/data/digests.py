"""Cache of the SHA-256 hashes of large files. An entry is valid as long as the files do not change."""

import hashlib
import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tfscale.files import write_atomically

LARGE = 1 << 26
"""Minimum total size in bytes of files whose hash is cached."""
SETTLED_SECONDS = 2.0
"""Minimum age in seconds of files whose hash is cached. A more recent file may still change without a new modification
time, because some file systems store times in whole seconds."""


class Finding:
    """A cached SHA-256 of a list of files, valid while their paths, sizes, modification times and inodes stay the same.

    The hash is stored in `folder`, in a file whose name is derived from these attributes, so that large corpora are not
    hashed again each time a plan is shown. Nothing is stored if `folder` is None or the files are smaller than 64 MiB
    in total.
    """

    def __init__(self, folder: Path | None, files: Sequence[Path], kind: str = "") -> None:
        """Read the attributes of the files. The `kind` distinguishes several hashes of the same files.

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
        """Store the hash, unless the files were younger than SETTLED_SECONDS or the folder is not writable."""
        if self._path is None or not self._settled:
            return
        with suppress(OSError):
            write_atomically(self._path, value.encode())
