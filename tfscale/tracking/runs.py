"""Data model of tracker runs. An experiment has one run for each replicate (seed) of an arm, with a child run for each
stage, and one run for the comparison of all arms."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from tfscale.files import read_object
from tfscale.stage.how import without
from tfscale.tracking.points import Point

Status = Literal["running", "finished", "failed", "killed"]

ROLE, ARM, ARM_KEY, KEY = "tfscale.role", "tfscale.arm", "tfscale.arm_key", "tfscale.key"
"""Names of the tags that identify a run within its experiment."""


def identity(tags: Mapping[str, str]) -> str:
    """Return the values of the identifying tags of a run, joined by spaces. The result identifies the run within its
    experiment."""
    return " ".join(tags[name] for name in (ROLE, ARM, ARM_KEY, KEY) if name in tags)


@dataclass(frozen=True)
class About:
    """Description of a tracker run, which is known before the run starts."""

    name: str
    """Displayed name of the run."""
    tags: dict[str, str]
    """Tags for finding the run, including the tags that identify it."""
    colour: str | None = None
    """Suggested colour in charts, as #RRGGBB."""
    note: str = ""
    """Description of the run, in Markdown."""

    @property
    def identity(self) -> str:
        """String that identifies the run within its experiment."""
        return identity(self.tags)


@dataclass(frozen=True)
class Corpus:
    """Dataset on which a stage is trained."""

    name: str
    fingerprint: str
    source: str
    """Source of the corpus, as JSON."""
    profile: str
    """Numbers of documents and tokens of the splits, as JSON."""


@dataclass(frozen=True)
class Model:
    """Model of a finished stage, whose weights are not copied to the tracker."""

    name: str
    family: str
    tags: dict[str, str]
    """Tags for finding the model, including the key of the stage."""
    params: dict[str, str]
    step: int
    """Number of tokens that the model was trained on, including the training of parent stages."""


@dataclass(frozen=True)
class Artifact:
    """File that is mirrored to the tracker."""

    path: Path
    kept_back: Sequence[str] = ()
    """Fields to remove from the JSON object in the file. If no fields are given, the file is mirrored unchanged."""

    def content(self) -> bytes:
        """Return the content of the file to mirror.

        Raises:
            ValueError: fields must be removed, but the file does not contain a JSON object.
        """
        if not self.kept_back:
            return self.path.read_bytes()
        return (json.dumps(without(read_object(self.path), self.kept_back), indent=2) + "\n").encode()


@dataclass(frozen=True)
class Contents:
    """Current status, times, metric values, files and settings of a tracker run."""

    status: Status
    start: int
    """Start time in milliseconds since 1970. `end` and the times of the points have the same unit."""
    end: int
    points: list[Point] = field(default_factory=list)
    files: Sequence[Artifact] = ()
    params: dict[str, str] = field(default_factory=dict)
    """Settings of the run, which do not change after the run has started."""
    corpus: Corpus | None = None
    """Corpus that the run reads, or None if the run reads no corpus."""
    model: Model | None = None
    """Model of a finished stage, or None if the run has not finished or does not belong to a stage."""


class Run(Protocol):
    """Interface of a tracker run, whose description and contents are read from files."""

    def about(self) -> About:
        """Return the description of the run."""

    def sources(self) -> list[Path]:
        """Return the existing files from which the run is read. The list is empty before the run starts."""

    def contents(self) -> Contents | None:
        """Return the contents of the run, or None if nothing has been recorded for the run yet.

        Raises:
            UserFault: a file in the run's folder does not have the format that tfscale writes.
        """
