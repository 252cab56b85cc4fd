"""Functions for the folder that contains all checkpoints of a stage."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tfscale.checkpoint.contents import MANIFEST_FILE, BrokenCheckpoint
from tfscale.checkpoint.reading import verify


def latest(folder: Path, report: Callable[[str], None]) -> Path | None:
    """Return the newest complete checkpoint in a folder, or None if there is none. Rename newer checkpoints that are
    broken, and call `report` with a message about each."""
    for found in sorted(folder.glob("step-*"), reverse=True):
        try:
            verify(found)
        except BrokenCheckpoint as fault:
            aside = found.with_name(f"broken-{found.name}")
            shutil.rmtree(aside, ignore_errors=True)
            found.rename(aside)
            report(f"renamed to {aside.name}: {fault}")
            continue
        return found
    return None


def sweep(folder: Path) -> None:
    """Remove incomplete checkpoints that were left by processes that were killed. The caller must hold the lock of the
    stage, so that no other process writes a checkpoint."""
    for left in folder.glob(".step-*.writing"):
        shutil.rmtree(left)


def prune(folder: Path, keep: int, every: int = 0) -> None:
    """Remove all checkpoints except the newest `keep` and, if `every` is not 0, those at multiples of `every` steps.
    The manifest is removed first, so that a partially removed checkpoint never appears to be complete."""
    for old in sorted(folder.glob("step-*"))[:-keep]:
        if every and int(old.name.removeprefix("step-")) % every == 0:
            continue
        (old / MANIFEST_FILE).unlink(missing_ok=True)
        shutil.rmtree(old)
