"""A stage's folder as the checks see it, and what its steps must have cost."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.checkpoint import Totals
from tfscale.models.counts import flops
from tfscale.stage.result import DONE_FILE
from tfscale.stage.spec import StageSpec
from tfscale.verify.reading import Check, read_object


@dataclass(frozen=True)
class End:
    """done.json."""

    key: str
    step: int
    tokens: int
    before: Totals
    totals: Totals
    evaluation: dict[str, Any]
    checkpoint: str


@dataclass(frozen=True)
class Parent:
    """The finished stage that another grew out of."""

    spec: StageSpec
    end: End


@dataclass(frozen=True)
class StageFolder:
    """A stage's folder, as far as it could be read."""

    path: Path
    spec: StageSpec
    parent: Parent | None
    before: Totals | None
    """What its lineage had cost when it began; None where that cannot be known."""
    finished: bool
    end: End | None
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


def read_end(path: Path) -> End:
    """done.json of a stage's folder.

    Raises:
        ValueError: it is missing or not the end of a stage; the message names it.
    """
    file = path / DONE_FILE
    values = read_object(file)
    try:
        before, totals = Totals(**values["before"]), Totals(**values["totals"])
        evaluation = dict(values["eval"])
        return End(values["key"], values["step"], values["tokens"], before, totals, evaluation, values["checkpoint"])
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: not the end of a stage ({type(error).__name__}: {error})") from error


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
