"""Stages and their folders, with functions that find a stage, check whether a stage is finished, and return its
lineage."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tfscale.stage.result import has_result, read_result
from tfscale.stage.spec import STAGE_FILE, StageSpec, read_spec

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """Stage of an arm: its size, key, folder and spec."""

    size: str
    """Name of the stage's model size in the schedule, such as 354M. Stages of the same size are compared with each
    other."""
    key: str
    path: Path
    """Folder of the stage, `runs/stages/<label>-<key>`, which may not exist yet."""
    spec: StageSpec


def is_done(stage: Stage) -> bool:
    """Return whether a stage is finished, that is, whether its `done.json` exists."""
    return has_result(stage.path)


def has_undecided_end(stage: Stage) -> bool:
    """Return whether a rule or a trial may still end a stage early, so that its number of tokens is not known yet."""
    return stage.spec.may_end_early and not is_done(stage)


def as_it_ended(spec: StageSpec, stage_dir: Path) -> StageSpec:
    """Return the spec of a stage with the actual number of training tokens as `tokens`, even if a rule or a trial has
    ended the stage early. If the stage is not finished or its result is damaged, return `spec` unchanged."""
    if not spec.may_end_early or not has_result(stage_dir):
        return spec
    try:
        return replace(spec, tokens=read_result(stage_dir).tokens)
    except ValueError:
        return spec  # damaged, which `tfscale status --verify` reports


def weights_dir(stage_dir: Path, spec: StageSpec) -> Path:
    """Return the folder of the stage whose final weights a stage starts from: the parent or, if the parent's growth was
    rejected, the parent's parent. Raise ValueError if the parent's `stage.yaml` is missing or damaged."""
    assert spec.parent_dir is not None, "a stage without a parent starts from scratch"
    parent = stage_dir / spec.parent_dir
    above = read_spec(parent).parent_dir if spec.returns else None
    return parent if above is None else parent / above


def lineage(last: T, parent_of: Callable[[T], T | None]) -> list[T]:
    """Return `last` and all its ancestors, from the oldest ancestor to `last`. `parent_of` returns the parent of an
    element, or None."""
    found = [last]
    while (parent := parent_of(found[0])) is not None:
        found.insert(0, parent)
    return found


def find_stage(runs: Path, name: str) -> Path:
    """Return the folder of the stage that `name` identifies. `name` is the path of a stage folder, or the beginning of
    the folder name or of the key of a stage in the folder `runs`.

    Raises:
        ValueError: no stage or several stages match. The message lists the stages to choose from.
    """
    if (Path(name) / STAGE_FILE).is_file():
        return Path(name)
    folders = sorted((runs / "stages").glob("*-*/")) if runs.is_dir() else []
    keys = {folder: folder.name.rpartition("-")[2] for folder in folders}
    fitting = [folder for folder in folders if folder.name.startswith(name) or keys[folder].startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    choices = ", ".join(folder.name for folder in fitting or folders) or "none"
    what = "several stages match" if fitting else "no stage matches"
    raise ValueError(f"{name}: {what} this name in {runs / 'stages'}. Available stages: {choices}")
