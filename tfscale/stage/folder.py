"""Stages and their folders: finding a stage, its completion, and its lineage."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tfscale.stage.result import is_finished, read_result
from tfscale.stage.spec import STAGE_FILE, StageSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """Stage of an arm."""

    size: str
    """Size of the schedule that the stage belongs to, such as 354M; stages of one size are compared with each other."""
    key: str
    path: Path
    """Folder of the stage, `runs/stages/<label>-<key>`; it may not exist yet."""
    spec: StageSpec


def is_done(stage: Stage) -> bool:
    """Return whether a stage is finished."""
    return is_finished(stage.path)


def is_open(stage: Stage) -> bool:
    """Return whether the number of tokens of a stage is still undecided."""
    return stage.spec.ending is not None and not is_done(stage)


def as_it_ended(spec: StageSpec, stage_dir: Path) -> StageSpec:
    """Return the spec; if a rule has ended the stage, `tokens` is the number of tokens actually trained."""
    if spec.ending is None or not is_finished(stage_dir):
        return spec
    try:
        return replace(spec, tokens=read_result(stage_dir).tokens)
    except ValueError:
        return spec  # damaged; `tfscale status --verify` reports how


def lineage(last: T, parent_of: Callable[[T], T | None]) -> list[T]:
    """Return `last` and its ancestors, ordered from the oldest."""
    found = [last]
    while (parent := parent_of(found[0])) is not None:
        found.insert(0, parent)
    return found


def find_stage(runs: Path, name: str) -> Path:
    """Return the folder of a stage.

    Args:
        name: path of the stage, name of its folder, its key, or the beginning of its key.

    Raises:
        ValueError: no stage or several stages match; the message lists the stages to choose from.
    """
    if (Path(name) / STAGE_FILE).is_file():
        return Path(name)
    folders = sorted((runs / "stages").glob("*-*/")) if runs.is_dir() else []
    fitting = [folder for folder in folders if folder.name == name or folder.name.rpartition("-")[2].startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(folder.name for folder in fitting or folders) or "none"
    what = "several stages" if fitting else "no stage"
    raise ValueError(f"{name}: {what} of that name in {runs / 'stages'}; there are: {there}")
