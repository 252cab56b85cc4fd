"""The checkpoints of a stage, side by side in one folder."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tfscale.checkpoint.contents import MANIFEST_FILE, BrokenCheckpoint
from tfscale.checkpoint.reading import verify


def latest(folder: Path, report: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint in a folder of checkpoints. A broken one is set aside under a name that says so, and
    reported."""
    for found in sorted(folder.glob("step-*"), reverse=True):
        try:
            verify(found)
        except BrokenCheckpoint as fault:
            aside = found.with_name(f"broken-{found.name}")
            shutil.rmtree(aside, ignore_errors=True)
            found.rename(aside)
            report(f"set aside as {aside.name}: {fault}")
            continue
        return found
    return None


def sweep(folder: Path) -> None:
    """Removes what killed writes have left. Only for whoever holds the stage's lock: nobody else is writing then."""
    for left in folder.glob(".step-*.writing"):
        shutil.rmtree(left)


def prune(folder: Path, keep: int, every: int = 0) -> None:
    """Removes all checkpoints but the newest `keep`, and those at multiples of `every` steps. The manifest goes first:
    half a checkpoint never looks whole."""
    for old in sorted(folder.glob("step-*"))[:-keep]:
        if every and int(old.name.removeprefix("step-")) % every == 0:
            continue
        (old / MANIFEST_FILE).unlink(missing_ok=True)
        shutil.rmtree(old)
