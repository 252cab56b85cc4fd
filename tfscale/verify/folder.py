"""Common parts of all checks: findings, the contents of a stage's folder, and the cost of steps."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tfscale.checkpoint import BrokenCheckpoint
from tfscale.models.counts import flops
from tfscale.stage.result import Result
from tfscale.stage.spec import StageSpec
from tfscale.totals import Totals

T = TypeVar("T")
Check = Generator[str, None, T]
"""Generator that yields findings and returns values for later checks. A finding is a sentence that names a file, the
content found and the expected content."""

DAMAGE = (
    BrokenCheckpoint, ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError,
)  # fmt: skip
"""Exceptions that may be raised when a damaged file is read."""


def guarded(path: Path, check: Check[T]) -> Check[T | None]:
    """Run a check, and report an exception that a damaged file raises as a finding."""
    try:
        return (yield from check)
    except DAMAGE as error:
        yield damaged(path, error)
        return None


def damaged(path: Path, error: Exception) -> str:
    """Return a read error as a finding that names the file."""
    message = str(error)
    return message if str(path) in message else f"{path}: damaged ({type(error).__name__}: {message})"


@dataclass(frozen=True)
class Parent:
    """Finished stage that another stage grew from."""

    spec: StageSpec
    result: Result


@dataclass(frozen=True)
class StageFolder:
    """Contents of a stage's folder that could be read."""

    path: Path
    spec: StageSpec
    parent: Parent | None
    before: Totals | None
    """Cost of the lineage when the stage began; None if it cannot be determined."""
    finished: bool
    result: Result | None
    busy: bool
    """True while a live process works on the stage."""


def begun(path: Path) -> bool:
    """Return whether a stage's folder contains files. An empty folder is left by a process that was killed at the
    start."""
    try:
        return any(not file.name.startswith(".") for file in path.iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True  # the reading functions report the problem


def costs_of(what: str, totals: Totals, before: Totals, spec: StageSpec, step: int) -> Check[None]:
    """Check that the tokens and FLOPs in `totals` are those of `step` steps, and that the times have not decreased."""
    tokens = step * spec.batch_tokens
    work = tokens * flops(spec.model).training
    for name, there, wanted in (
        ("tokens", totals.tokens, before.tokens + tokens),
        ("FLOPs", totals.flops, before.flops + work),
    ):
        if there != wanted:
            yield f"{what}: {there:,} {name}, but {step:,} steps of this stage and its parents make {wanted:,}"
    if totals.seconds < before.seconds or totals.device_seconds < before.device_seconds:
        yield f"{what}: {words(totals)}, less than the parents' {words(before)}"


def words(totals: Totals) -> str:
    """Return totals as text for a finding."""
    return f"{totals.tokens:,} tokens, {totals.flops:,} FLOPs, {totals.seconds} s, {totals.device_seconds} device-s"
