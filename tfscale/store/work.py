"""Folders for uploads and downloads in progress."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfscale.stage.lock import StageLock

WORK = ".store"
"""Name of the folder in the runs folder that contains all work folders."""


@contextmanager
def work_folder(runs: Path, what: str, name: str) -> Iterator[Path]:
    """Yield the path of a folder for an upload or download, which no other process uses at the same time. It contains
    the files of an interrupted process, if any. The caller creates and removes the folder.

    Args:
        runs: runs folder.
        what: `push` or `pull`.
        name: name of the stage or corpus.

    Raises:
        StageHeld: another process uses the folder.
    """
    place = runs / WORK / what / name
    place.mkdir(parents=True, exist_ok=True)
    with StageLock(place):
        yield place / "files"
