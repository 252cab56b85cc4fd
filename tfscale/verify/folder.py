"""Types and functions that the checks of a stage share: findings, the data read from the stage's folder, and the check
of costs."""

from collections.abc import Collection, Generator
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
"""Generator that yields findings and returns a value for later checks. A finding is text that names a file and
describes a fault in the file."""

DAMAGE = (
    BrokenCheckpoint, ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError,
)  # fmt: skip
"""Exceptions that may be raised when a damaged file is read."""


def guarded(path: Path, check: Check[T]) -> Check[T | None]:
    """Yield the findings of a check of the file or folder `path`, and return the value of the check. If the check
    raises one of the exceptions in `DAMAGE`, yield another finding and return None."""
    try:
        return (yield from check)
    except DAMAGE as error:
        yield damaged(path, error)
        return None


def damaged(path: Path, error: Exception) -> str:
    """Return a finding that names a damaged file and describes the error that was raised when the file was read."""
    message = str(error)
    return message if str(path) in message else f"{path}: damaged ({type(error).__name__}: {message})"


@dataclass(frozen=True)
class Parent:
    """Spec and result of a finished stage that is an ancestor of another stage."""

    spec: StageSpec
    result: Result


@dataclass(frozen=True)
class StageFolder:
    """Data read from the folder of a stage, for all checks of the stage."""

    path: Path
    spec: StageSpec
    parent: Parent | None
    """Stage from whose weights this stage started, or None if the stage has no parent or the parent cannot be read."""
    before: Totals | None
    """Cumulative cost of all ancestors at the start of the stage, or None if it cannot be determined."""
    finished: bool
    result: Result | None
    busy: bool
    """True if a running process was working on the stage when the folder was read."""
    bad_steps: frozenset[int]
    """Numbers of the steps that had a non-finite loss or gradient."""


def begun(path: Path) -> bool:
    """Return whether a stage has begun, that is, whether its folder contains files that are not hidden. A process that
    is killed at its start leaves an empty folder."""
    try:
        return any(not file.name.startswith(".") for file in path.iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True  # the reading functions report the problem


def costs_of(
    what: str, totals: Totals, before: Totals, spec: StageSpec, step: int, bad_steps: Collection[int]
) -> Check[None]:
    """Check that the tokens, model FLOPs and optimizer FLOPs in `totals` are those in `before` plus the cost of `step`
    steps, and that the times are not less than in `before`. Steps in `bad_steps`, which had a non-finite loss or
    gradient, may have skipped their update. Findings begin with `what`, which names the file."""
    tokens = step * spec.batch_tokens
    work = tokens * flops(spec.model).training
    for name, there, wanted in (
        ("tokens", totals.tokens, before.tokens + tokens),
        ("FLOPs", totals.flops, before.flops + work),
    ):
        if there != wanted:
            yield f"{what}: {there:,} {name}, but the parents and {step:,} steps of this stage make {wanted:,}"
    yield from _updates(what, totals, before, spec, step, sum(bad <= step for bad in bad_steps))
    if totals.seconds < before.seconds or totals.device_seconds < before.device_seconds:
        yield f"{what}: {words(totals)}, less than the parents' {words(before)}"


def _updates(what: str, totals: Totals, before: Totals, spec: StageSpec, step: int, bad: int) -> Check[None]:
    """Check that the optimizer FLOPs in `totals` are those in `before` plus the FLOPs of one update per step. Up to
    `bad` steps may have skipped their update, because the loss or a gradient was non-finite."""
    there, at_first = totals.spent_on_updates, before.spent_on_updates
    if there is None or at_first is None:
        return  # a part of the lineage was imported, or recorded by a version without this count
    update = spec.optimizer.update_flops(spec.model)
    if there not in (at_first + updates * update for updates in range(step - bad, step + 1)):
        skipped = f" ({bad:,} of which may have been skipped)" if bad else ""
        wanted = f"{step:,} updates of this stage{skipped} make {at_first + step * update:,}"
        yield f"{what}: {there:,} optimizer FLOPs, but the parents and {wanted}"


def words(totals: Totals) -> str:
    """Return the tokens, FLOPs and times in `totals` as text for findings."""
    known = "" if totals.optimizer_flops is None else f", {totals.optimizer_flops:,} optimizer FLOPs"
    return (
        f"{totals.tokens:,} tokens, {totals.flops:,} FLOPs{known}, {totals.seconds} s, {totals.device_seconds} device-s"
    )
