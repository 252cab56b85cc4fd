"""Folders for uploads and downloads in progress."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfscale.stage.lock import StageLock

WORK = ".store"
"""Name of the folder in the runs folder that contains all work folders."""


@contextmanager
def work_folder(runs: Path, what: str, name: str) -> Iterator[Path]:
    """Yield the path of a folder in the runs folder that no other process uses at the same time. It contains the files
    that an interrupted process has left. The caller creates and removes the folder.

    Raises:
        StageHeld: another process uses the folder.
    """
    place = runs / WORK / what / name
    place.mkdir(parents=True, exist_ok=True)
    with StageLock(place):
        yield place / "files"
