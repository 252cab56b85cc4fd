"""Documents set aside on disk, to be read again in any order."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self


class Spool:
    """A temporary file of UTF-8 documents, each after its length. It lasts as long as the `with` block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b")
        self._end = 0
        self.documents = 0
        self.utf8_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink()

    def append(self, text: bytes) -> int:
        """Keeps a document and returns its place. Not to be mixed with reading."""
        place = self._end
        self._end += self._file.write(len(text).to_bytes(8, "little") + text)
        self.documents += 1
        self.utf8_bytes += len(text)
        return place

    def read(self) -> Iterator[str]:
        """All documents, in the order in which they came."""
        self._file.seek(0)
        for _ in range(self.documents):
            yield self._next()

    def read_at(self, places: Iterable[int]) -> Iterator[str]:
        """The documents at these places."""
        for place in places:
            self._file.seek(place)
            yield self._next()

    def _next(self) -> str:
        return self._file.read(int.from_bytes(self._file.read(8), "little")).decode()
