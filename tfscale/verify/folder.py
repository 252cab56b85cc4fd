"""The base of every check: findings, the readable part of a stage's folder, and the cost of its steps."""

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
    """A finished stage that another one grew out of."""

    spec: StageSpec
    result: Result


@dataclass(frozen=True)
class StageFolder:
    """The readable part of a stage's folder."""

    path: Path
    spec: StageSpec
    parent: Parent | None
    before: Totals | None
    """Cost of its lineage when it began; None if that cannot be known."""
    finished: bool
    result: Result | None
    busy: bool
    """True while a live process works on it."""


def begun(path: Path) -> bool:
    """Return whether a stage's folder holds anything. It is empty if the process that made it was killed right away."""
    try:
        return any(not file.name.startswith(".") for file in path.iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True  # something is there that its readers will stumble over


def costs_of(what: str, totals: Totals, before: Totals, spec: StageSpec, step: int) -> Check[None]:
    """Check that totals are those of `step` steps, as far as steps determine them."""
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
    """Return totals as text for a finding."""
    return f"{totals.tokens:,} tokens, {totals.flops:,} FLOPs, {totals.seconds} s, {totals.device_seconds} device-s"
