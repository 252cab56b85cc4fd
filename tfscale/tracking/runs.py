"""What MLflow should hold: a run for each arm, one for each of its stages, one for the comparison of all. Derived from
the arms and the stage folders alone; nothing here knows MLflow."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol

from tfscale.models.counts import parameters
from tfscale.schedule.arms import Arm, ArmStage
from tfscale.tracking.points import Point, curve_points, end_point, milliseconds, stage_points
from tfscale.training.events import DONE_FILE, METRICS_FILE, Event, read_events
from tfscale.training.spec import HOW, STAGE_FILE, spec_to_dict

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

ROLE, ARM, KEY = "tfscale.role", "tfscale.arm", "tfscale.key"
NAME = "mlflow.runName"
PARENT = "mlflow.parentRunId"

_ENDS: Mapping[str, Status] = {"preempted": "KILLED", "failed": "FAILED"}
_ARTIFACTS = (STAGE_FILE, "growth.json", "environment.json", DONE_FILE)
_LONGEST_VALUE = 6000


@dataclass(frozen=True)
class History:
    """What has happened so far."""

    points: list[Point]
    status: Status
    start: int
    """Milliseconds since 1970, as all times here."""
    end: int


class Run(Protocol):
    """A run as MLflow should hold it."""

    def tags(self) -> dict[str, str]:
        """Its tags, name included. Role, arm and key among them tell it from every other run of the experiment."""

    def params(self) -> dict[str, str]:
        """Its parameters, which never change."""

    def files(self) -> list[Path]:
        """Its artifacts that exist by now."""

    def mark(self) -> str | None:
        """Another one as soon as there is something new to mirror; None until it has begun. No file is read."""

    def history(self) -> History | None:
        """Its metrics and state; None while there is no whole event."""


def identity(tags: Mapping[str, str]) -> str:
    """What a run is found by."""
    return " ".join(tags[name] for name in (ROLE, ARM, KEY) if name in tags)


@dataclass(frozen=True)
class StageRun:
    """One stage, as part of one arm."""

    arm: Arm
    stage: ArmStage

    def tags(self) -> dict[str, str]:
        spec = self.stage.spec
        tags = {
            NAME: spec.label,
            ROLE: "stage",
            ARM: self.arm.name,
            KEY: self.stage.key,
            "tfscale.size": self.stage.size,
            "tfscale.family": spec.model.family,
            "tfscale.label": spec.label,
        }
        if spec.growth is not None:
            tags["tfscale.growth"] = str(spec.growth["name"])
        if spec.parent is not None:
            tags["tfscale.parent"] = spec.parent
        return tags

    def params(self) -> dict[str, str]:
        spec = self.stage.spec
        what = {name: value for name, value in spec_to_dict(spec).items() if name not in HOW}
        values = dict(_flat(what)) | {"parameters": str(parameters(spec.model))}
        return {name: value[:_LONGEST_VALUE] for name, value in values.items()}

    def files(self) -> list[Path]:
        paths = (self.stage.path / name for name in _ARTIFACTS)
        return [path for path in paths if path.exists()]

    def mark(self) -> str | None:
        metrics = self.stage.path / METRICS_FILE
        return _digest(self.tags(), [stamp(path) for path in (metrics, *self.files())]) if metrics.exists() else None

    def history(self) -> History | None:
        done, events = self.done(), self.events()
        return _history(stage_points(events), _status(done, events), events) if events else None

    def done(self) -> bool:
        """Whether it has finished. Asked before the events, so that a finished run lacks none."""
        return (self.stage.path / DONE_FILE).exists()

    def events(self) -> list[Event]:
        """What led to its present weights; empty if it has not begun."""
        return read_events(self.stage.path)


@dataclass(frozen=True)
class ArmRun:
    """One arm: the parent of its stages' runs."""

    arm: Arm

    def tags(self) -> dict[str, str]:
        return {
            NAME: self.arm.name,
            ROLE: "arm",
            ARM: self.arm.name,
            "tfscale.kind": self.arm.kind,
            "mlflow.note.content": self.arm.title,
        }

    def params(self) -> dict[str, str]:
        return {}

    def files(self) -> list[Path]:
        return []

    def mark(self) -> str | None:
        marks = [stage.mark() for stage in self._stages()]
        return _digest(self.tags(), marks) if any(marks) else None

    def history(self) -> History | None:
        stages = [(stage.done(), stage.events()) for stage in self._stages()]
        begun = [(done, events) for done, events in stages if events]
        if not begun:
            return None
        points = [point for done, events in begun if done for point in end_point(events)]
        points.sort(key=lambda point: point.time)  # a stage that ends later must not come before one already sent
        if self._is_one_lineage():
            points += [point for _, events in begun for point in curve_points(events)]
        statuses = [_status(done, events) for done, events in begun]
        status = _joint(statuses, unbegun=len(begun) < len(stages))
        return _history(points, status, [event for _, events in begun for event in events])

    def _stages(self) -> list[StageRun]:
        return [StageRun(self.arm, stage) for stage in self.arm.stages]

    def _is_one_lineage(self) -> bool:
        """Whether each stage goes on from the one before. Runs of their own each have a curve, and no common one."""
        stages = self.arm.stages
        return all(child.spec.parent == parent.key for parent, child in pairwise(stages))


@dataclass(frozen=True)
class ComparisonRun:
    """Figures and tables over all arms."""

    paths: tuple[Path, ...]

    def tags(self) -> dict[str, str]:
        return {NAME: "comparison", ROLE: "comparison"}

    def params(self) -> dict[str, str]:
        return {}

    def files(self) -> list[Path]:
        return list(self.paths)

    def mark(self) -> str:
        return _digest(self.tags(), [stamp(path) for path in self.paths])

    def history(self) -> History:
        times = [milliseconds(path.stat().st_mtime) for path in self.paths]
        return History([], "FINISHED", min(times), max(times))


def stamp(path: Path) -> list[Any]:
    """Changes when the file does."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return [path.name]
    return [path.name, stat.st_size, stat.st_mtime_ns]


def _history(points: list[Point], status: Status, events: list[Event]) -> History:
    times = [milliseconds(event["time"]) for event in events]
    return History(points, status, min(times), max(times))


def _status(done: bool, events: list[Event]) -> Status:
    last = next((event for event in reversed(events) if event["event"] in ("start", "end")), {})
    return "FINISHED" if done else _ENDS.get(last.get("reason", ""), "RUNNING")


def _joint(statuses: list[Status], unbegun: bool) -> Status:
    """An arm's, from its stages': while one runs the arm does, and so it does between two of them."""
    for status in ("RUNNING", "FAILED", "KILLED"):
        if status in statuses:
            return status
    return "RUNNING" if unbegun else "FINISHED"


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values by dotted names; what is None has no value."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from _flat(value, f"{prefix}.{index}")
    elif values is not None:
        yield prefix, str(values)


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
