"""Tracker runs of an experiment: one run for each replicate (seed) of an arm, one child run for each stage of a
replicate, and one run for the comparison of the arms."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
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
from tfscale.tracking.points import curve_points, end_points, milliseconds, model_points, stage_points
from tfscale.tracking.runs import ARM, ARM_KEY, KEY, ROLE, About, Artifact, Contents, Corpus, Model, Status

_ARTIFACTS: Mapping[str, Sequence[str]] = {
    STAGE_FILE: how.STAGE, GROWTH_FILE: (), ENVIRONMENT_FILE: how.ENVIRONMENT, DONE_FILE: (), EVALUATIONS_FILE: ()
}  # fmt: skip
"""Mapping from the name of each mirrored file in a stage folder to the fields that are removed from the mirrored
copy."""
_ENDS: Mapping[str, Status] = {"preempted": "killed", "failed": "failed"}


@dataclass(frozen=True)
class StageRun:
    """Tracker run of a stage. It is a child of the tracker run of the stage's arm."""

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
            status=_status_of(done, events),
            start=min(times),
            end=max(times),
            points=points,
            files=self._files(),
            params=self._params(),
            corpus=_corpus_of(self.stage),
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


def _corpus_of(stage: Stage) -> Corpus:
    """Return the corpus of a stage. If the prepared corpus cannot be read on this host, its source and its numbers of
    documents and tokens are omitted."""
    try:
        manifest = read_manifest(stage.path / stage.spec.run.data_dir)
    except DataError:
        return Corpus("corpus", stage.spec.data.fingerprint, "{}", "{}")
    splits = {"train": manifest.train, "heldout": manifest.heldout}
    profile = {name: {"documents": split.documents, "tokens": split.tokens} for name, split in splits.items()}
    name = manifest.source.get("source", "corpus")
    return Corpus(name, stage.spec.data.fingerprint, json.dumps(manifest.source), json.dumps(profile))


def _status_of(done: bool, events: list[Event]) -> Status:
    last = last_event(events, "start", "end") or {}
    return "finished" if done else _ENDS.get(last.get("reason", ""), "running")


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted name and the string form of each nested value that is not None."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from _flat(value, f"{prefix}.{index}")
    elif values is not None:
        yield prefix, str(values)


@dataclass(frozen=True)
class ArmRun:
    """Tracker run of a replicate of an arm. The metrics are the final measurements of the finished stages, with the
    cumulative number of model FLOPs as x-axis. If each stage of the main line (`Arm.main_line`) starts from the
    previous stage, the run also contains the validation perplexity during the training of these stages."""

    arm: Arm
    colour: str

    def about(self) -> About:
        stages = self.arm.stages
        recipes = dict.fromkeys(
            str(stage.spec.growth["name"]) for stage in self.arm.main_line if stage.spec.growth is not None
        )
        tags = {
            ROLE: "arm",
            ARM: self.arm.name,
            ARM_KEY: self.arm.key,
            "tfscale.kind": self.arm.kind,
            "tfscale.seed": ",".join(dict.fromkeys(str(stage.spec.seed) for stage in stages)),
            **({"tfscale.growth": ",".join(recipes)} if recipes else {}),
        }
        note = f"{self.arm.title}: {', '.join(stage.size for stage in stages)}"
        return About(self.arm.title, tags, self.colour, note)

    def sources(self) -> list[Path]:
        return [path for run in self.stage_runs() for path in run.sources()]

    def contents(self) -> Contents | None:
        # Completion is checked before the events are read, so that no event of a finished stage is missing.
        read = [(stage, is_done(stage), read_events(stage.path)) for stage in self.arm.all_stages]
        begun = [(stage, done, events) for stage, done, events in read if events]
        if not begun:
            return None
        ended = [(stage, events) for stage, done, events in begun if done and stage in self.arm.stages]
        points = [point for stage, events in ended for point in end_points(events, read_evaluations(stage.path))]
        points.sort(key=lambda point: point.time)  # values of stages that end later come after those already sent
        if all(child.spec.parent == parent.key for parent, child in pairwise(self.arm.main_line)):
            # Each stage continues the previous one. Independent stages have no common curve.
            points += [
                point for stage, _, events in begun if stage in self.arm.main_line for point in curve_points(events)
            ]
        statuses = [_status_of(done, events) for _, done, events in begun]
        status = _joint(statuses, unbegun=len(begun) < len(self.arm.all_stages))
        times = [milliseconds(event["time"]) for _, _, events in begun for event in events]
        return Contents(status, min(times), max(times), points)

    def stage_runs(self) -> list[StageRun]:
        return [StageRun(self.arm, stage, self.colour) for stage in self.arm.all_stages]


def _joint(statuses: list[Status], unbegun: bool) -> Status:
    """Return the status of an arm: the first of `running`, `failed` and `killed` that is among the statuses of the
    stages that have begun. If all of these stages are finished, return `running` if other stages have not begun, and
    otherwise `finished`."""
    for status in ("running", "failed", "killed"):
        if status in statuses:
            return status
    return "running" if unbegun else "finished"


@dataclass(frozen=True)
class ComparisonRun:
    """Tracker run of a comparison, with the files in the folder of the comparison. The note of the run is the table of
    the comparison."""

    chain: Arm
    """Chain with which the other arms are compared."""
    folder: Path

    def about(self) -> About:
        table = self.folder / "table.md"
        note = table.read_text(encoding="utf-8") if table.is_file() else ""
        return About(f"comparison of {self.chain.title}", {ROLE: "comparison", ARM_KEY: self.chain.key}, note=note)

    def sources(self) -> list[Path]:
        return [path for path in sorted(self.folder.glob("[!.]*")) if path.is_file()]

    def contents(self) -> Contents | None:
        files = self.sources()
        times = [milliseconds(path.stat().st_mtime) for path in files]
        return Contents("finished", min(times), max(times), files=[Artifact(path) for path in files]) if times else None
