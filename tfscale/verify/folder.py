"""What every check builds on: findings, the stage's folder as far as it could be read, and what its steps cost."""

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
"""Yields findings, sentences that name a file, what is there and what should be; returns what later checks need."""

DAMAGE = (
    BrokenCheckpoint, ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError,
)  # fmt: skip
"""Exceptions that a damaged file may raise in its reader."""


def guarded(path: Path, check: Check[T]) -> Check[T | None]:
    """Run a check; end it with a finding if a damaged file raises in it."""
    try:
        return (yield from check)
    except DAMAGE as error:
        yield damaged(path, error)
        return None


def damaged(path: Path, error: Exception) -> str:
    """Return an error of reading as a finding that names the path."""
    message = str(error)
    return message if str(path) in message else f"{path}: damaged ({type(error).__name__}: {message})"


@dataclass(frozen=True)
class Parent:
    """The finished stage that another grew out of."""

    spec: StageSpec
    result: Result


@dataclass(frozen=True)
class StageFolder:
    """A stage's folder, as far as it could be read."""

    path: Path
    spec: StageSpec
    parent: Parent | None
    before: Totals | None
    """What its lineage had cost when it began; None where that cannot be known."""
    finished: bool
    result: Result | None
    busy: bool
    """A live process works on it."""


def begun(path: Path) -> bool:
    """Whether a stage's folder holds anything. One that was made and then lost its maker to a kill holds nothing."""
    try:
        return any(not file.name.startswith(".") for file in path.iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True  # something is there that its readers will stumble over


def costs_of(what: str, totals: Totals, before: Totals, spec: StageSpec, step: int) -> Check[None]:
    """Whether totals are those of `step` steps, as far as steps decide them."""
    tokens = step * spec.batch_tokens
    work = tokens * flops(spec.model).training
    for name, there, wanted in (
        ("tokens", totals.tokens, before.tokens + tokens),
        ("FLOPs", totals.flops, before.flops + work),
    ):
        if there != wanted:
            yield f"{what}: {there:,} {name}; {step:,} steps of this stage and its parents make {wanted:,}"
    if totals.seconds < before.seconds or totals.device_seconds < before.device_seconds:
        yield f"{what}: {words(totals)}; that is less than its parents' {words(before)}"


def words(totals: Totals) -> str:
    """Totals for a finding."""
    return f"{totals.tokens:,} tokens, {totals.flops:,} FLOPs, {totals.seconds} s, {totals.device_seconds} device-s"
