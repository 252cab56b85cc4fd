"""Contents of a tracker's runs: an arm, each of its stages as a child, and the comparison of all arms."""

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
"""Tags that distinguish a run from every other run of its experiment."""


def identity(tags: Mapping[str, str]) -> str:
    """Return the text that identifies a run in its experiment."""
    return " ".join(tags[name] for name in (ROLE, ARM, ARM_KEY, KEY) if name in tags)


@dataclass(frozen=True)
class About:
    """The description of a run, which is known before the run begins."""

    name: str
    """Displayed name of the run."""
    tags: dict[str, str]
    """Tags with which the run can be found, including its identity."""
    colour: str | None = None
    """Suggested colour in charts, as #RRGGBB."""
    note: str = ""
    """Description of the run, in Markdown."""

    @property
    def identity(self) -> str:
        """Text that identifies the run in its experiment."""
        return identity(self.tags)


@dataclass(frozen=True)
class Corpus:
    """The dataset that a stage reads."""

    name: str
    fingerprint: str
    source: str
    """Source of the corpus, as JSON."""
    profile: str
    """Numbers of documents and tokens of the splits, as JSON."""


@dataclass(frozen=True)
class Model:
    """The model of a finished stage, whose weights are not copied."""

    name: str
    family: str
    tags: dict[str, str]
    """Tags with which the model can be found, including the stage's key."""
    params: dict[str, str]
    step: int
    """Number of training tokens of the lineage."""


@dataclass(frozen=True)
class Artifact:
    """A file that is mirrored."""

    path: Path
    kept_back: Sequence[str] = ()
    """Fields of the file's JSON object that are left out; if empty, the file is mirrored unchanged."""

    def content(self) -> bytes:
        """Return the content to mirror.

        Raises:
            ValueError: fields have to be left out, but the file is not a JSON object.
        """
        if not self.kept_back:
            return self.path.read_bytes()
        return (json.dumps(without(read_object(self.path), self.kept_back), indent=2) + "\n").encode()


@dataclass(frozen=True)
class Contents:
    """The contents of a run so far."""

    status: Status
    start: int
    """Start time in milliseconds since 1970, like all times here."""
    end: int
    points: list[Point] = field(default_factory=list)
    files: Sequence[Artifact] = ()
    params: dict[str, str] = field(default_factory=dict)
    """Settings of the run, which never change."""
    corpus: Corpus | None = None
    """Corpus that the run reads; None if it reads none."""
    model: Model | None = None
    """Model of the finished stage; None if the run has not finished or is not that of a stage."""


class Run(Protocol):
    """A source of a tracker's run."""

    def about(self) -> About:
        """Return the description of the run."""

    def sources(self) -> list[Path]:
        """Return the existing files that the run is read from; empty if it has not begun."""

    def contents(self) -> Contents | None:
        """Return the contents of the run; None while there is no complete event.

        Raises:
            UserFault: a file in its folder is not what tfscale wrote.
        """
