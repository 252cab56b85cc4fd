"""Tracker run of a stage, which is a child of the run of an arm."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
from tfscale.stage.spec import CHECKPOINTS, STAGE_FILE, key_fields
from tfscale.tracking.points import milliseconds, model_points, stage_points
from tfscale.tracking.runs import ARM, ARM_KEY, KEY, ROLE, About, Artifact, Contents, Corpus, Model, Status

_ARTIFACTS: Mapping[str, Sequence[str]] = {
    STAGE_FILE: how.STAGE, GROWTH_FILE: (), ENVIRONMENT_FILE: how.ENVIRONMENT, DONE_FILE: (), EVALUATIONS_FILE: ()
}  # fmt: skip
"""Files in a stage's folder that are mirrored, with the fields that are removed from each file."""
_ENDS: Mapping[str, Status] = {"preempted": "killed", "failed": "failed"}


@dataclass(frozen=True)
class StageRun:
    """Run of a stage, which is a child of the run of its arm."""

    arm: Arm
    stage: Stage
    colour: str

    def about(self) -> About:
        tags = {ROLE: "stage", ARM: self.arm.name, ARM_KEY: self.arm.key, **self._own_tags()}
        return About(f"{self.arm.label(self.stage)} {self.arm.title}", tags, self.colour)

    def sources(self) -> list[Path]:
        metrics = self.stage.path / METRICS_FILE
        return [metrics, *(file.path for file in self._files())] if metrics.exists() else []

    def contents(self) -> Contents | None:
        done = is_done(self.stage)  # before the events are read, so that no event of a finished stage is missing
        events = read_events(self.stage.path)
        if not events:
            return None
        points = stage_points(events)
        if done:
            points += model_points(events, read_evaluations(self.stage.path))
        times = [milliseconds(event["time"]) for event in events]
        return Contents(
            status=status_of(done, events),
            start=min(times),
            end=max(times),
            points=points,
            files=self._files(),
            params=self._params(),
            corpus=corpus_of(self.stage),
            model=self._model(events) if done else None,
        )

    def _files(self) -> list[Artifact]:
        artifacts = (Artifact(self.stage.path / name, kept_back) for name, kept_back in _ARTIFACTS.items())
        return [artifact for artifact in artifacts if artifact.path.exists()]

    def _params(self) -> dict[str, str]:
        what = key_fields(self.stage.spec)
        if self.stage.spec.may_end_early:
            del what["tokens"]  # MLflow parameters cannot change, but the stage may end early
        return dict(_flat(what)) | {"parameters": str(parameters(self.stage.spec.model))}

    def _own_tags(self) -> dict[str, str]:
        """Return the tags of the stage that do not depend on the arm."""
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

    def _model(self, events: list[Event]) -> Model:
        spec = self.stage.spec
        checkpoint = max((self.stage.path / CHECKPOINTS).glob("step-*"), default=self.stage.path)
        return Model(
            name=f"{spec.label}-{self.stage.key}".replace(".", "_"),
            family=spec.model.family,
            tags=self._own_tags() | {"tfscale.checkpoint": str(checkpoint.relative_to(self.stage.path.parents[1]))},
            params={"parameters": str(parameters(spec.model))},
            step=max((int(event["total_tokens"]) for event in events if event["event"] == "eval"), default=0),
        )


def corpus_of(stage: Stage) -> Corpus:
    """Return the description of a stage's corpus for a tracker. If the corpus is not on this host, the source and the
    numbers of documents and tokens are omitted."""
    try:
        manifest = read_manifest(stage.path / stage.spec.run.data_dir)
    except DataError:
        return Corpus("corpus", stage.spec.data.fingerprint, "{}", "{}")
    splits = {"train": manifest.train, "heldout": manifest.heldout}
    profile = {name: {"documents": split.documents, "tokens": split.tokens} for name, split in splits.items()}
    name = manifest.source.get("source", "corpus")
    return Corpus(name, stage.spec.data.fingerprint, json.dumps(manifest.source), json.dumps(profile))


def status_of(done: bool, events: list[Event]) -> Status:
    """Return the tracker status of a stage's run.

    Args:
        done: True if the stage is finished.
        events: events of the stage.
    """
    last = last_event(events, "start", "end") or {}
    return "finished" if done else _ENDS.get(last.get("reason", ""), "running")


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted name and the text of each nested value that is not None."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from _flat(value, f"{prefix}.{index}")
    elif values is not None:
        yield prefix, str(values)
