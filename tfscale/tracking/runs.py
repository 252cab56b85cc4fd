"""What MLflow should hold of a run, and how runs are told apart. Nothing here knows MLflow."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tfscale.stage.how import without
from tfscale.tracking.points import Point

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

ROLE, ARM, ARM_KEY, KEY = "tfscale.role", "tfscale.arm", "tfscale.arm_key", "tfscale.key"
NAME = "mlflow.runName"
NOTE = "mlflow.note.content"
"""Shown above the run, as Markdown."""
PARENT = "mlflow.parentRunId"
COLOUR = "mlflow.runColor"
"""In charts; people may choose another one."""


@dataclass(frozen=True)
class Model:
    """A finished stage's weights, which stay where they are."""

    name: str
    family: str
    tags: dict[str, str]
    """The stage's key among them, by which it is found."""
    params: dict[str, str]
    points: list[Point]
    """Those of its run that are the model's own."""
    step: int
    """Tokens of the lineage."""


@dataclass(frozen=True)
class Artifact:
    """A file that is mirrored."""

    path: Path
    kept_back: Sequence[str] = ()
    """Fields of its JSON object that are left out; none: the file is mirrored as it is."""

    def shared(self) -> str:
        """Its content without what is kept back.

        Raises:
            ValueError: it is no JSON object.
        """
        values = json.loads(self.path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"{self.path}: not a JSON object")
        return json.dumps(without(values, self.kept_back), indent=2) + "\n"


@dataclass(frozen=True)
class Corpus:
    """What a stage reads."""

    name: str
    fingerprint: str
    source: str
    """JSON."""
    profile: str
    """JSON: documents and tokens of its splits."""


@dataclass(frozen=True)
class History:
    """What has happened so far."""

    points: list[Point]
    status: Status
    start: int
    """Milliseconds since 1970, as all times here."""
    end: int
    model: Model | None = None
    """None before it has finished."""


class Run(Protocol):
    """A run as MLflow should hold it."""

    def tags(self) -> dict[str, str]:
        """Its tags, name included. Role, arm and keys among them tell it from every other run of the experiment."""

    def params(self) -> dict[str, str]:
        """Its parameters, which never change."""

    def files(self) -> list[Artifact]:
        """Its artifacts that exist by now."""

    def corpus(self) -> Corpus | None:
        """What it reads; None if it reads nothing."""

    def mark(self) -> str | None:
        """Another one as soon as there is something new to mirror; None until it has begun. No measurement is read."""

    def history(self) -> History | None:
        """Its metrics and state; None while there is no whole event.

        Raises:
            UserFault: a file of its folder is not what tfscale wrote.
        """


def identity(tags: Mapping[str, str]) -> str:
    """What a run is found by."""
    return " ".join(tags[name] for name in (ROLE, ARM, ARM_KEY, KEY) if name in tags)


def stamp(path: Path) -> list[Any]:
    """Changes when the file does."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return [path.name]
    return [path.name, stat.st_size, stat.st_mtime_ns]


def digest(*values: Any) -> str:
    """A short name of plain values."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
