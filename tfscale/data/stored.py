"""Prepared corpora as they are stored, and as sources of further stages."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar

from tfscale.data.errors import DataError
from tfscale.data.manifest import MANIFEST_FILE, Manifest, read_manifest
from tfscale.data.sources import CorpusSpec, Source, local_path, needed, unused
from tfscale.data.work import LOCK_FILE
from tfscale.faults import Fault


@dataclass(frozen=True)
class Folder:
    """A folder with a prepared corpus, or with an unfinished preparation."""

    path: Path

    @property
    def size(self) -> int:
        """Size on disk in bytes."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    @property
    def manifest(self) -> Manifest:
        """The manifest of the corpus.

        Raises:
            DataError: it is damaged.
        """
        return read_manifest(self.path)


def stored(root: Path) -> list[Folder]:
    """Return the prepared corpora in a folder."""
    return [Folder(file.parent) for file in sorted(root.glob(f"[!.]*/{MANIFEST_FILE}"))]


def unfinished(root: Path) -> list[Folder]:
    """Return the unfinished preparations in a folder."""
    return [Folder(file.parent) for file in sorted(root.glob(f".*/{LOCK_FILE}"))]


@dataclass(frozen=True)
class ShardSource(Source):
    """A corpus that was prepared before, here or elsewhere. Its tokens are used where they are."""

    path: Path

    tokenized: ClassVar[bool] = True

    @classmethod
    def check(cls, spec: CorpusSpec) -> Iterable[Fault | str]:
        """Return the faults of the settings: a path is needed."""
        return chain(needed(spec, "path", "a prepared folder", "..."), unused(spec, "dataset", "options"))

    @classmethod
    def of(cls, spec: CorpusSpec, root: Path | None) -> "ShardSource":
        """Return the folder, whether it is there or not."""
        return cls(local_path(spec))

    def missing(self) -> list[str]:
        """Return why the folder is not a prepared corpus."""
        try:
            read_manifest(self.path)
        except DataError as error:
            return [str(error)]
        return []

    def identity(self) -> dict[str, str]:
        """Return the identity and origin of the text that the tokens were made of."""
        return read_manifest(self.path).source

    def parts(self) -> tuple[()]:
        """Return nothing: the text is not needed any more."""
        return ()
