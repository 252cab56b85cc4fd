"""Human-readable records of stages: what was run, where, and from which parent."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.files import read_object
from tfscale.plan.arms import Arm
from tfscale.stage import how
from tfscale.stage.environment import ENVIRONMENT_FILE
from tfscale.stage.spec import STAGE_FILE


@dataclass(frozen=True)
class StageRecord:
    """Record of one stage, read from its folder."""

    key: str
    folder: str
    arms: tuple[str, ...]
    """Titles of the arms that contain the stage, each with the stage's size in that arm."""
    parent: str | None
    seed: int
    spec: dict[str, Any]
    """Content of stage.yaml without the settings of how and where the stage was run; empty before it has begun."""
    environment: dict[str, Any]
    """Content of environment.json without names of hosts and users; empty before the stage has begun."""


def stage_records(arms: Iterable[Arm]) -> tuple[StageRecord, ...]:
    """Return the record of every stage of the arms, without duplicates.

    Raises:
        ValueError: a file cannot be read.
    """
    arms = tuple(arms)
    stages = {stage.key: stage for arm in arms for stage in arm.stages}
    places = {key: tuple(f"{a.title}, {s.size}" for a in arms for s in a.stages if s.key == key) for key in stages}
    return tuple(
        StageRecord(
            key,
            stage.path.name,
            places[key],
            stage.spec.parent,
            stage.spec.seed,
            spec=how.without(_object(stage.path / STAGE_FILE), how.STAGE),
            environment=how.without(_object(stage.path / ENVIRONMENT_FILE), how.ENVIRONMENT),
        )
        for key, stage in stages.items()
    )


def _object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, or an empty one if there is no file."""
    return read_object(path) if path.exists() else {}
