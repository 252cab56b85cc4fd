"""Local files of text."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from tfscale.data.digests import Finding, sha256_of
from tfscale.data.errors import DataError
from tfscale.data.readers import ALLOWED, TextPart, divide, is_text


@dataclass(frozen=True)
class TextSource:
    """A file of text, or all that are in a folder and below it, in the order of their names: see `readers`. Text is
    UTF-8, taken as it stands."""

    path: Path
    text_key: str = "text"
    """Key of the text in a line of JSON, or its column in Parquet."""
    known: Path | None = None
    """A folder where the hashes of large files are remembered."""

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
        names, files = zip(*self._files(), strict=True)
        try:
            finding = Finding(self.known, files)
            digest = finding.value
            if digest is None:
                digest = identity_of(names, sha256_of(files))
                finding.keep(digest)
        except OSError as error:
            fault = f"{error.filename}: {error.strerror}. Make it readable, or take it out of {self.path}."
            raise DataError(fault) from error
        return {"source": "text", "sha256": digest, "text_key": self.text_key}

    def origin(self) -> dict[str, str]:
        """Nothing is known of where local files are from."""
        return {}

    @property
    def slow(self) -> bool:
        """It is read again as fast as it would be from a copy."""
        return False

    def parts(self) -> list[TextPart]:
        """The documents, in parts that can be read side by side."""
        return divide([file for _, file in self._files()], self.text_key)

    def _files(self) -> list[tuple[str, Path]]:
        """Names relative to the source's path, in order, with their files."""
        try:
            if self.path.is_file() and is_text(self.path.name):
                return [(self.path.name, self.path)]
            there = self.path.exists()
            files = [file for file in self.path.rglob("*") if is_text(file.name) and file.is_file()]
        except OSError as error:
            raise DataError(f"path={self.path}: {error.strerror}. Give a folder or file of text: {ALLOWED}.") from error
        if not there:
            raise DataError(f"path={self.path}: no such file or folder. Give a folder or file of text: {ALLOWED}.")
        if not files:
            raise DataError(f"path={self.path}: no text found. Allowed are {ALLOWED}, or a folder of them.")
        return sorted((file.relative_to(self.path).as_posix(), file) for file in files)


def identity_of(names: tuple[str, ...], digests: list[str]) -> str:
    """A hash over the names of files and the SHA-256 of each."""
    whole = hashlib.sha256()
    for pair in zip(names, digests, strict=True):
        whole.update(json.dumps(pair).encode())
    return whole.hexdigest()
