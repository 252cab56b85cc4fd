"""The folder of a stage."""

from dataclasses import dataclass
from pathlib import Path

from tfscale.stage.spec import StageSpec


@dataclass(frozen=True)
class Stage:
    """One stage of an arm."""

    size: str
    """Which size of the schedule it stands for, such as 354M: stages of one size are compared with each other."""
    key: str
    path: Path
    """Its folder, `runs/stages/<label>-<key>`; it may not exist yet."""
    spec: StageSpec
