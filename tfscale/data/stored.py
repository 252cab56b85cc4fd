"""What stands in a folder of prepared corpora."""

from dataclasses import dataclass
from pathlib import Path

from tfscale.data.manifest import MANIFEST_FILE, Manifest, read_manifest
from tfscale.data.work import LOCK_FILE


@dataclass(frozen=True)
class Folder:
    """A corpus, or what there is of one."""

    path: Path

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    @property
    def manifest(self) -> Manifest:
        """What the corpus is.

        Raises:
            DataError: it is damaged.
        """
        return read_manifest(self.path)


def stored(root: Path) -> list[Folder]:
    """The prepared corpora."""
    return [Folder(file.parent) for file in sorted(root.glob(f"[!.]*/{MANIFEST_FILE}"))]


def unfinished(root: Path) -> list[Folder]:
    """Preparations that have not ended."""
    return [Folder(file.parent) for file in sorted(root.glob(f".*/{LOCK_FILE}"))]
