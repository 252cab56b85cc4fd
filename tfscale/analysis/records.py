"""Records of stages for the HTML report, which contain the settings, environment and parent of each stage."""

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
    """Settings, environment and parent of a stage, read from the stage's folder."""

    key: str
    folder: str
    arms: tuple[str, ...]
    """Titles of the arms that contain the stage, each with the stage's label in that arm, such as `354M trunk`."""
    parent: str | None
    seed: int
    spec: dict[str, Any]
    """Content of stage.yaml without settings that do not affect the result. It is empty before the stage starts."""
    environment: dict[str, Any]
    """Content of environment.json without the host name and the command line. It is empty before the stage starts."""


def stage_records(arms: Iterable[Arm]) -> tuple[StageRecord, ...]:
    """Return the records of all stages of the arms, without duplicates.

    Raises:
        ValueError: a file cannot be read.
    """
    arms = tuple(arms)
    stages = {stage.key: stage for arm in arms for stage in arm.all_stages}
    places = {
        key: tuple(f"{a.title}, {a.label(s)}" for a in arms for s in a.all_stages if s.key == key) for key in stages
    }
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
    """Return the object in a JSON file, or an empty object if there is no file."""
    return read_object(path) if path.exists() else {}
