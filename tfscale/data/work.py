"""Storage for the intermediate results (pieces) of the preparation of a corpus until the corpus is complete.

Each piece is a file whose name ends with the first digits of its SHA-256. Therefore truncated pieces are detected, and
a preparation that was killed reuses its finished pieces when it resumes.
"""

import fcntl
import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tfscale.files import sha256_of

LOCK_FILE = "lock"
_DIGITS = 16


@dataclass(frozen=True)
class Piece:
    """An intermediate result that a preparation writes to a file. The file may not exist yet."""

    folder: Path
    name: str
    found: str | None = None
    """Name of the file that an earlier attempt wrote, or None if there is no such file."""

    def whole(self) -> Path | None:
        """Return the path of the file that an earlier attempt wrote, or None if there is no complete file. A damaged
        file is deleted."""
        if self.found is None:
            return None
        path = self.folder / self.found
        if self.found == f"{self.name}-{sha256_of(path)[:_DIGITS]}":
            return path
        path.unlink()
        return None

    @contextmanager
    def writing(self) -> Iterator["PieceWriter"]:
        """Yield a writer for the file of the piece. The file is kept only if the `with` block ends without an error."""
        aside = self.folder / f".{self.name}-{secrets.token_hex(8)}"
        try:
            with aside.open("wb") as file:
                writer = PieceWriter(file)
                yield writer
            writer.path = self.folder / f"{self.name}-{writer.digest.hexdigest()[:_DIGITS]}"
            aside.replace(writer.path)
        finally:
            aside.unlink(missing_ok=True)


class PieceWriter:
    """A writer that computes the SHA-256 of a file (`digest`) while it writes the file. After the file is complete, its
    path is in `path`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.path = Path()

    def write(self, content: Any) -> None:
        """Append a buffer of bytes to the file, and include it in the SHA-256."""
        self._file.write(content)
        self.digest.update(content)


class Pieces:
    """Mapping from names to the intermediate results of a preparation, including those that earlier attempts left in
    the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found = {file.name.rpartition("-")[0]: file.name for file in folder.iterdir() if file.name[0] != "."}

    def __getitem__(self, name: str) -> Piece:
        return Piece(self._folder, name, self._found.get(name))


@contextmanager
def alone_in(folder: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Create a folder and hold a lock on it until the `with` block or the process ends. If another process holds the
    lock, call `wait` once, for example to print a message, and wait until the lock is free.

    On a file system that does not support locks, two processes may do the same work. This is harmless, because both
    processes write the same files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass
        yield
