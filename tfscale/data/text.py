"""Text source that reads local files."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tfscale.data.compression import compression_of, unpacked
from tfscale.data.errors import DataError
from tfscale.data.listing import Listing, find_faults, kind_of, list_text
from tfscale.data.readers import TextPart, divide
from tfscale.data.sources import KNOWN, CorpusSpec, Source, local_path, needed, unused
from tfscale.data.utf8 import MARK
from tfscale.faults import Fault
from tfscale.files import CachedDigest, sha256_of_all


@dataclass(frozen=True)
class TextSource(Source):
    """A source with the text of one file, or of all text files in a folder and its subfolders, in the order of their
    names (`listing`). Text must be UTF-8. The text is read unchanged, except that a byte-order mark is removed."""

    path: Path
    text_key: str = "text"
    known: Path | None = None
    """Folder in which one hash of all files is cached if the files are large. None disables the cache."""

    @classmethod
    def check(cls, spec: CorpusSpec) -> Iterable[Fault | str]:
        return chain(needed(spec, "path", "the file or folder", "..."), unused(spec, "dataset", "options"))

    @classmethod
    def of(cls, spec: CorpusSpec, root: Path | None) -> "TextSource":
        return cls(local_path(spec), spec.text_key, root / KNOWN if root else None)

    def missing(self) -> list[str]:
        """Return the reasons why files cannot be read. Only the beginning of each file is checked."""
        try:
            return find_faults(self.listing())
        except DataError as error:
            return [str(fault) for fault in error.faults]

    def listing(self) -> Listing:
        return list_text(self.path)

    def identity(self) -> dict[str, str]:
        """Return values that identify the text, including a hash of the names and contents of the files."""
        listed = self.listing().files
        files = [file.path for file in listed]
        try:
            cached = CachedDigest(self.known, files, "text without its mark")
            digest = cached.value
            if digest is None:
                digest = identity_of([file.name for file in listed], digests_of(files))
                cached.keep(digest)
        except OSError as error:
            fault = f"{error.filename}: {error.strerror}. Make the file readable, or remove it from {self.path}."
            raise DataError(fault) from error
        return {"source": "text", "sha256": digest, "text_key": self.text_key}

    def parts(self) -> list[TextPart]:
        return divide([file.path for file in self.listing().files], self.text_key)


def identity_of(names: Sequence[str], digests: Sequence[str]) -> str:
    """Return one SHA-256, 64 hex digits, of the names and digests of all files."""
    whole = hashlib.sha256()
    for pair in zip(names, digests, strict=True):
        whole.update(json.dumps(pair).encode())
    return whole.hexdigest()


def digests_of(files: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of each file, as 64 hex digits. For a .txt file that begins with a byte-order mark, return a
    different hash, because earlier versions of tfscale treated this mark as text, and corpora that those versions
    prepared must not be reused.

    Raises:
        OSError: a file cannot be read. The error names the file.
    """
    digests = zip(files, sha256_of_all(files), strict=True)
    return [hashlib.sha256(f"{digest} unmarked".encode()).hexdigest() if _marked(file) else digest
            for file, digest in digests]  # fmt: skip


def _marked(file: Path) -> bool:
    if kind_of(file.name) != "text":
        return False
    try:
        with unpacked(file, compression_of(file)) as content:
            return content.read(len(MARK)) == MARK
    except DataError:
        return False  # reported when the file is read
