"""A local file or folder of text."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfscale.data.errors import DataError

SUFFIXES = (".txt", ".jsonl")


@dataclass(frozen=True)
class TextSource:
    """A `.txt` file is one document; a line of a `.jsonl` file is one document. Of a folder, all such files in it and
    below it are read, in the order of their names. Text is UTF-8, taken as it stands."""

    path: Path
    text_key: str = "text"
    """Key of the text in a line of JSONL."""

    def missing(self) -> list[str]:
        """What must be there first. Nothing is read yet."""
        try:
            self._files()
        except DataError as error:
            return [str(error)]
        return []

    def identity(self) -> dict[str, str]:
        """A hash over names and contents: the same for the same files in another place.

        Raises:
            DataError: nothing to read.
        """
        whole = hashlib.sha256()
        for name, file in self._files():
            try:
                with file.open("rb") as content:
                    digest = hashlib.file_digest(content, "sha256").hexdigest()
            except OSError as error:
                raise DataError(
                    f"{file}: {error.strerror}. Make it readable, or take it out of {self.path}."
                ) from error
            whole.update(json.dumps([name, digest]).encode())
        return {"source": "text", "sha256": whole.hexdigest(), "text_key": self.text_key}

    def documents(self) -> Iterator[str]:
        """Raises DataError for bytes that are not UTF-8 and lines that are not JSON with the text's key."""
        for _, file in self._files():
            if file.suffix == ".txt":
                yield _decode(file, file.read_bytes(), 0)
            else:
                yield from self._lines(file)

    def _files(self) -> list[tuple[str, Path]]:
        """Names relative to the source's path, in order, with their files."""
        try:
            if self.path.is_file() and self.path.suffix in SUFFIXES:
                return [(self.path.name, self.path)]
            there = self.path.exists()
            files = [file for file in self.path.rglob("*") if file.suffix in SUFFIXES and file.is_file()]
        except OSError as error:
            raise DataError(
                f"path={self.path}: {error.strerror}. Give a folder or file of .txt or .jsonl text."
            ) from error
        if not there:
            raise DataError(f"path={self.path}: no such file or folder. Give a folder or file of .txt or .jsonl text.")
        if not files:
            raise DataError(f"path={self.path}: no text found. Allowed are .txt and .jsonl files, or a folder of them.")
        return sorted((file.relative_to(self.path).as_posix(), file) for file in files)

    def _lines(self, file: Path) -> Iterator[str]:
        position = 0
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield self._entry(f"{file}, line {number}", _decode(file, line, position))
                position += len(line)

    def _entry(self, where: str, line: str) -> str:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error}). Each line of a .jsonl file is one JSON object.") from error
        if not isinstance(entry, dict) or not isinstance(entry.get(self.text_key), str):
            keys = ", ".join(sorted(entry)) if isinstance(entry, dict) else "none"
            raise DataError(f"{where}: no text under text_key={self.text_key!r}. Keys of the line: {keys}.")
        text: str = entry[self.text_key]
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{where}: half a surrogate pair at character {error.start}. Escape both halves."
            ) from error
        return text


def _decode(file: Path, content: bytes, position: int) -> str:
    """The text of `content`, which stands at byte `position` of the file."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: byte {position + error.start} is not UTF-8 ({error.reason}). Convert the file to UTF-8."
        ) from error
