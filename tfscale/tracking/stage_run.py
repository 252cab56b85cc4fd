"""One stage, as part of one arm."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfscale.data.errors import DataError
from tfscale.data.manifest import read_manifest
from tfscale.models.counts import parameters
from tfscale.plan.arms import Arm
from tfscale.stage import how
from tfscale.stage.environment import ENVIRONMENT_FILE
from tfscale.stage.evaluations import EVALUATIONS_FILE, read_evaluations
from tfscale.stage.events import METRICS_FILE, Event, last_event, read_events
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.growth_record import GROWTH_FILE
from tfscale.stage.result import DONE_FILE
from tfscale.stage.spec import CHECKPOINTS, STAGE_FILE, what_of
from tfscale.tracking.points import Point, evaluation_points, final_points, milliseconds, stage_points
from tfscale.tracking.runs import (
    ARM,
    ARM_KEY,
    COLOUR,
    KEY,
    NAME,
    ROLE,
    Artifact,
    Corpus,
    History,
    Model,
    Status,
    digest,
    stamp,
)

_ARTIFACTS: Mapping[str, Sequence[str]] = {
    STAGE_FILE: how.STAGE, GROWTH_FILE: (), ENVIRONMENT_FILE: how.ENVIRONMENT, DONE_FILE: (), EVALUATIONS_FILE: ()
}  # fmt: skip
"""Files of a stage's folder that are mirrored, each with the fields that stay on the machine."""
_ENDS: Mapping[str, Status] = {"preempted": "KILLED", "failed": "FAILED"}
_LONGEST_VALUE = 6000


@dataclass(frozen=True)
class StageRun:
    """A child of its arm's run."""

    arm: Arm
    stage: Stage
    colour: str

    def tags(self) -> dict[str, str]:
        return {
            NAME: f"{self.stage.size} {self.arm.title}",
            COLOUR: self.colour,
            ROLE: "stage",
            ARM: self.arm.name,
            ARM_KEY: self.arm.key,
            **self._own_tags(),
        }

    def params(self) -> dict[str, str]:
        spec = self.stage.spec
        what = what_of(spec)
        if spec.ending is not None:
            del what["tokens"]  # a parameter never changes, and a rule has yet to decide
        values = dict(_flat(what)) | {"parameters": str(parameters(spec.model))}
        return {name: value[:_LONGEST_VALUE] for name, value in values.items()}

    def files(self) -> list[Artifact]:
        artifacts = (Artifact(self.stage.path / name, kept_back) for name, kept_back in _ARTIFACTS.items())
        return [artifact for artifact in artifacts if artifact.path.exists()]

    def corpus(self) -> Corpus | None:
        return corpus_of(self.stage)

    def mark(self) -> str | None:
        metrics = self.stage.path / METRICS_FILE
        stamps = [stamp(path) for path in (metrics, *(artifact.path for artifact in self.files()))]
        return digest(self.tags(), stamps) if metrics.exists() else None

    def history(self) -> History | None:
        done, events = is_done(self.stage), self.events()  # in this order, so that a finished run lacks no event
        if not events:
            return None
        points, model = stage_points(events), None
        if done:
            own = [*final_points(events), *evaluation_points(self.evaluations(), events)]
            points += own
            model = self._model(own)
        times = [milliseconds(event["time"]) for event in events]
        return History(points, status_of(done, events), min(times), max(times), model)

    def events(self) -> list[Event]:
        """What led to its present weights; empty if it has not begun."""
        return read_events(self.stage.path)

    def evaluations(self) -> list[dict[str, Any]]:
        """What its model has been measured on since."""
        return read_evaluations(self.stage.path)

    def _own_tags(self) -> dict[str, str]:
        """What is true of it in every arm."""
        spec = self.stage.spec
        tags = {
            KEY: self.stage.key,
            "tfscale.size": self.stage.size,
            "tfscale.family": spec.model.family,
            "tfscale.label": spec.label,
            "tfscale.seed": str(spec.seed),
        }
        if spec.growth is not None:
            tags["tfscale.growth"] = str(spec.growth["name"])
        if spec.parent is not None:
            tags["tfscale.parent"] = spec.parent
        return tags

    def _model(self, points: list[Point]) -> Model:
        spec = self.stage.spec
        checkpoint = max((self.stage.path / CHECKPOINTS).glob("step-*"), default=self.stage.path)
        return Model(
            name=f"{spec.label}-{self.stage.key}".replace(".", "_"),
            family=spec.model.family,
            tags=self._own_tags() | {"tfscale.checkpoint": str(checkpoint.relative_to(self.stage.path.parents[1]))},
            params={"parameters": str(parameters(spec.model))},
            points=points,
            step=max((point.step for point in points), default=0),
        )


def corpus_of(stage: Stage) -> Corpus:
    """The corpus of a stage; without its figures where it is not on this disk."""
    try:
        manifest = read_manifest(stage.path / stage.spec.run.data_dir)
    except DataError:
        return Corpus("corpus", stage.spec.data.fingerprint, "{}", "{}")
    splits = {"train": manifest.train, "heldout": manifest.heldout}
    profile = {name: {"documents": split.documents, "tokens": split.tokens} for name, split in splits.items()}
    name = manifest.source.get("source", "corpus")
    return Corpus(name, stage.spec.data.fingerprint, json.dumps(manifest.source), json.dumps(profile))


def status_of(done: bool, events: list[Event]) -> Status:
    """What MLflow calls the state of a stage."""
    last = last_event(events, "start", "end") or {}
    return "FINISHED" if done else _ENDS.get(last.get("reason", ""), "RUNNING")


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
