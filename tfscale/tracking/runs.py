"""Runs as a tracker should hold them: an arm, each of its stages as a child, and the comparison of all arms."""

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
    """The name that is shown."""
    tags: dict[str, str]
    """Tags with which a run can be found, its identity among them."""
    colour: str | None = None
    """Suggested colour in charts, #RRGGBB."""
    note: str = ""
    """Description, in Markdown."""

    @property
    def identity(self) -> str:
        """Text that identifies the run in its experiment."""
        return identity(self.tags)


@dataclass(frozen=True)
class Corpus:
    """The data set that a stage reads."""

    name: str
    fingerprint: str
    source: str
    """Source of the corpus, as JSON."""
    profile: str
    """JSON: documents and tokens of its splits."""


@dataclass(frozen=True)
class Model:
    """A finished stage's weights, which are not copied."""

    name: str
    family: str
    tags: dict[str, str]
    """Tags with which the model can be found, the stage's key among them."""
    params: dict[str, str]
    step: int
    """Tokens of the lineage."""


@dataclass(frozen=True)
class Artifact:
    """A file that is mirrored."""

    path: Path
    kept_back: Sequence[str] = ()
    """Fields of its JSON object that are left out; none: the file is mirrored as it is."""

    def content(self) -> bytes:
        """Return what is mirrored.

        Raises:
            ValueError: fields have to be left out and the file is not a JSON object.
        """
        if not self.kept_back:
            return self.path.read_bytes()
        return (json.dumps(without(read_object(self.path), self.kept_back), indent=2) + "\n").encode()


@dataclass(frozen=True)
class Contents:
    """The contents of a run so far."""

    status: Status
    start: int
    """Milliseconds since 1970, like all times here."""
    end: int
    points: list[Point] = field(default_factory=list)
    files: Sequence[Artifact] = ()
    params: dict[str, str] = field(default_factory=dict)
    """Settings that never change."""
    corpus: Corpus | None = None
    """Corpus that the run reads. None: it reads none."""
    model: Model | None = None
    """The finished stage's model. None: the run has not finished, or is not that of a stage."""


class Run(Protocol):
    """A run as a tracker should hold it."""

    def about(self) -> About:
        """Return what it is."""

    def sources(self) -> list[Path]:
        """Return the files that it is read from and that exist; empty: it has not begun."""

    def contents(self) -> Contents | None:
        """Return what it holds; None while there is no whole event.

        Raises:
            UserFault: a file of its folder is not what tfscale wrote.
        """
