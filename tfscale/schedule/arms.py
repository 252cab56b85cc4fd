"""An experiment as its readers see it: arms, each a list of stages on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tfscale.training.spec import StageSpec

ArmKind = Literal["chain", "scratch", "trained_on"]


@dataclass(frozen=True)
class ArmStage:
    """One stage of an arm."""

    size: str
    """Which size of the schedule it stands for, such as 354M: stages of one size are compared with each other."""
    key: str
    path: Path
    """Its folder, `runs/stages/<label>-<key>`; it may not exist yet."""
    spec: StageSpec


@dataclass(frozen=True)
class Arm:
    """One way of getting to the schedule's sizes."""

    name: str
    """Such as `progressive` or `transformer_scratch`."""
    title: str
    """For legends and tables."""
    kind: ArmKind
    """`chain`: each stage grows out of the one before. `scratch`: each stage is a run of its own. `trained_on`: the
    chain's first model, trained on without growing."""
    stages: tuple[ArmStage, ...]
