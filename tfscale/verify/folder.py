"""Base of all checks: findings, the readable part of a stage's folder, and the cost of its steps."""

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
"""Generator that yields findings and returns what later checks need. A finding is a sentence that names a file, its
content and the expected content."""

DAMAGE = (
    BrokenCheckpoint, ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError,
)  # fmt: skip
"""Exceptions that a damaged file may raise in its reader."""


def guarded(path: Path, check: Check[T]) -> Check[T | None]:
    """Run a check; end it with a finding if a damaged file raises an exception in it."""
    try:
        return (yield from check)
    except DAMAGE as error:
        yield damaged(path, error)
        return None


def damaged(path: Path, error: Exception) -> str:
    """Return a read error as a finding that names the path."""
    message = str(error)
    return message if str(path) in message else f"{path}: damaged ({type(error).__name__}: {message})"


@dataclass(frozen=True)
class Parent:
    """A finished stage that another stage grew from."""

    spec: StageSpec
    result: Result


@dataclass(frozen=True)
class StageFolder:
    """The readable part of a stage's folder."""

    path: Path
    spec: StageSpec
    parent: Parent | None
    before: Totals | None
    """Cost of the lineage when the stage began; None if it cannot be determined."""
    finished: bool
    result: Result | None
    busy: bool
    """True while a live process works on the stage."""
    bad_steps: frozenset[int]
    """Numbers of the steps that had a non-finite loss or gradient."""


def begun(path: Path) -> bool:
    """Return True if a stage's folder is not empty. It is empty if its process was killed right away."""
    try:
        return any(not file.name.startswith(".") for file in path.iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True  # something exists that its readers will report


def costs_of(
    what: str, totals: Totals, before: Totals, spec: StageSpec, step: int, bad_steps: Collection[int]
) -> Check[None]:
    """Check that `totals` are those of `step` steps, as far as steps determine them."""
    tokens = step * spec.batch_tokens
    work = tokens * flops(spec.model).training
    for name, there, wanted in (
        ("tokens", totals.tokens, before.tokens + tokens),
        ("FLOPs", totals.flops, before.flops + work),
    ):
        if there != wanted:
            yield f"{what}: {there:,} {name}; {step:,} steps of this stage and its parents make {wanted:,}"
    yield from _updates(what, totals, before, spec, step, sum(bad <= step for bad in bad_steps))
    if totals.seconds < before.seconds or totals.device_seconds < before.device_seconds:
        yield f"{what}: {words(totals)}; that is less than its parents' {words(before)}"


def _updates(what: str, totals: Totals, before: Totals, spec: StageSpec, step: int, bad: int) -> Check[None]:
    """Check the optimizer's FLOPs, which are those of one update per step; `bad` steps may have had none."""
    there, at_first = totals.spent_on_updates, before.spent_on_updates
    if there is None or at_first is None:
        return  # recorded, at least in part, before tfscale counted the updates, or imported
    update = spec.optimizer.update_flops(spec.model)
    if there not in (at_first + updates * update for updates in range(step - bad, step + 1)):
        made = f"{step:,} updates of this stage" + (f" ({bad:,} of them may have been skipped)" if bad else "")
        yield f"{what}: {there:,} optimizer FLOPs; {made} and those of its parents make {at_first + step * update:,}"


def words(totals: Totals) -> str:
    """Return the text of totals in a finding."""
    known = "" if totals.optimizer_flops is None else f", {totals.optimizer_flops:,} optimizer FLOPs"
    return (
        f"{totals.tokens:,} tokens, {totals.flops:,} FLOPs{known}, {totals.seconds} s, {totals.device_seconds} device-s"
    )
