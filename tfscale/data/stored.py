"""Functions that find prepared corpora and unfinished preparations, and a source that reads a prepared corpus."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar

from tfscale.data.manifest import MANIFEST_FILE, read_manifest
from tfscale.data.sources import CorpusSpec, Source, local_path, needed, unused
from tfscale.data.work import LOCK_FILE
from tfscale.faults import Fault


def stored(root: Path) -> list[Path]:
    """Return the folders of the prepared corpora in `root`."""
    return [file.parent for file in sorted(root.glob(f"[!.]*/{MANIFEST_FILE}"))]


def unfinished(root: Path) -> list[Path]:
    """Return the folders of the unfinished preparations in `root`."""
    return [file.parent for file in sorted(root.glob(f".*/{LOCK_FILE}"))]


def size_of(folder: Path) -> int:
    """Return the total size, in bytes, of the files in a folder and its subfolders."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@dataclass(frozen=True)
class ShardSource(Source):
    """A source with the tokens of a prepared corpus, possibly from another machine. The tokens are not copied."""

    path: Path

    tokenized: ClassVar[bool] = True

    @classmethod
    def check(cls, spec: CorpusSpec) -> Iterable[Fault | str]:
        return chain(needed(spec, "path", "a prepared folder", "..."), unused(spec, "dataset", "options"))

    @classmethod
    def of(cls, spec: CorpusSpec, root: Path | None) -> "ShardSource":
        return cls(local_path(spec))

    def identity(self) -> dict[str, str]:
        return read_manifest(self.path).source  # the identity of the text from which the tokens were made

    def parts(self) -> tuple[()]:
        return ()  # the text is no longer needed
