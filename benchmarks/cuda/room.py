"""Part `room`, which trains, repeats, resumes and grows small stages with the processes of `tfscale run`."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.cuda.check import Check
from benchmarks.cuda.findings import NotMeasured
from tfscale.doctor.agreement import LOSS_BOUND_NATS, worst
from tfscale.doctor.device_check import measure_resume, weights
from tfscale.doctor.stages import StageProcess, events_of, small_stage, start_training, write_corpus
from tfscale.growth.tokenformer_recipe import GrowthRecipe
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.stage.environment import read_environment
from tfscale.stage.spec import RateSpec, RunSpec, StageSpec, key_of, write_spec

GROWTH_NATS = 1e-3
"""Bound in nats on the difference between the validation loss of a grown stage at step 0 and the last validation loss
of its parent."""
RECIPE = GrowthRecipe("tuned", new_keys="random", new_values="zero", tau="group")
GROWN_ROWS = 44
LAYOUT = ("micro_batch", "micro_batch_by", "recompute", "evaluation_batch", "device")


@dataclass(frozen=True)
class Workspace:
    """Folder of the stages, with the spec from which all of them derive."""

    folder: Path
    base: StageSpec

    def write(self, name: str, spec: StageSpec | None = None, **run: Any) -> Path:
        """Write a new stage and return its folder.

        Args:
            spec: spec of the stage, by default that of the base stage.
            run: run settings to change.
        """
        spec = spec or self.base
        write_spec(self.folder / name, replace(spec, run=replace(spec.run, **run)))
        return self.folder / name


def room(check: Check) -> None:
    """Train a small stage, then variants that must agree with it, then a grown stage."""
    folder = check.out / "room"
    shutil.rmtree(folder, ignore_errors=True)
    steps, grown_steps = (16, 4) if check.tiny else (391, 125)
    precision: Literal["auto", "bf16"] = "auto" if check.on_cuda else "bf16"
    base = small_stage(RunSpec(data_dir="../data", device=check.device, precision=precision, threads=1), steps)
    write_corpus(folder / "data", base.model.vocab_size, base.tokens + grown_steps * base.batch_tokens, 4096)
    made = Workspace(folder, base)
    attempt = check.record.attempt
    if not attempt("base stage", partial(_base, made, check.on_cuda)):
        return
    variants = _start_variants(made, check.tiny)
    _compare(check, "stopped and resumed", lambda: asdict(measure_resume(check.device)))
    for name, process in variants.items():
        _compare(check, f"{name}, against the base stage", partial(_against, made.folder / "base", process))
    _repeat_deterministically(check, made)
    grown = attempt("grown stage", partial(_grown, made, grown_steps))
    if grown:
        off = abs(grown["loss_at_step_0"] - grown["parent_loss"])
        check.record.bounded("grown stage: loss at step 0 minus its parent's, nats", off, GROWTH_NATS)
    shutil.rmtree(folder)


def _compare(check: Check, name: str, measure: Callable[[], Mapping[str, Any]]) -> None:
    found = check.record.attempt(name, measure)
    if found:
        check.record.bounded(f"{name}: last loss, nats", found["loss_error"], LOSS_BOUND_NATS)


def _base(made: Workspace, on_cuda: bool) -> Mapping[str, Any]:
    stage = made.write("base")
    start_training(stage).finish()
    start = events_of(stage, "start")[-1]
    environment = read_environment(stage)
    ways = (start["device"], environment.precision, environment.compiled)
    if on_cuda and ways != ("cuda", "bf16", True):
        raise NotMeasured(f"the stage was trained with (device, precision, compiled) = {ways}")
    return {
        "layout": {name: start[name] for name in LAYOUT},
        "loss": events_of(stage, "eval")[-1]["loss"],
        "tokens_per_second": [event["tokens_per_second"] for event in events_of(stage, "train")[-3:]],
    }


def _start_variants(made: Workspace, tiny: bool) -> dict[str, StageProcess]:
    """Start the training of variants of the base stage in parallel, because their speed is not measured."""
    unclipped = replace(made.base, optimizer=replace(made.base.optimizer, clip=0.0))
    folders = {
        "micro_batch=3": made.write("micro", micro_batch=3),
    }
    if not tiny:
        folders["again"] = made.write("again")
        folders["fp32, eager"] = made.write("fp32", precision="fp32", compile="off")
        folders["update=in_backward"] = made.write("in_backward", unclipped, update="in_backward")
    return {name: start_training(folder) for name, folder in folders.items()}


def _repeat_deterministically(check: Check, made: Workspace) -> None:
    """Train a stage twice in parallel with deterministic algorithms. The weights must be bit-equal."""
    names = ("deterministic", "deterministic_again")
    first, second = (start_training(made.write(name, deterministic=True)) for name in names)

    def repeat() -> Mapping[str, Any]:
        first.finish()
        return _against(first.folder, second)

    found = check.record.attempt("deterministic, repeated", repeat)
    if found:
        difference = found["largest_relative_difference"]
        check.record.bounded("deterministic, repeated: relative difference of weights", difference, 0.0)


def _against(other: Path, process: StageProcess) -> Mapping[str, Any]:
    """Wait for the end of a stage, and compare its weights and last loss with those of another stage."""
    process.finish()
    ours, theirs = weights(process.folder), weights(other)
    loss, other_loss = (events_of(folder, "eval")[-1]["loss"] for folder in (process.folder, other))
    return {
        "bit_equal": all(torch.equal(ours[name], theirs[name]) for name in theirs),
        "largest_relative_difference": worst(ours, theirs)[0],
        "loss": loss,
        "loss_error": abs(loss - other_loss),
        "micro_batch_by": events_of(process.folder, "start")[-1]["micro_batch_by"],
    }


def _grown(made: Workspace, steps: int) -> Mapping[str, Any]:
    stage = made.write("grown", _grown_stage(made.base, "../base", steps))
    start_training(stage, "tfscale.growth").finish()
    start_training(stage).finish()
    losses = [event["loss"] for event in events_of(stage, "eval")]
    return {
        "parent_loss": events_of(made.folder / "base", "eval")[-1]["loss"],
        "loss_at_step_0": losses[0],
        "last_loss": losses[-1],
        "checkpoint_seconds": events_of(stage, "checkpoint")[-1]["seconds"],
    }


def _grown_stage(parent: StageSpec, parent_dir: str, steps: int) -> StageSpec:
    """Return the spec of a stage that grows from `parent` with a function-preserving recipe."""
    assert isinstance(parent.model, TokenFormerConfig)
    target = parent.model.with_tokens((GROWN_ROWS, GROWN_ROWS, 4 * GROWN_ROWS))
    return replace(
        parent,
        model=RECIPE.grown_config(parent.model, target),
        data=replace(parent.data, start=parent.tokens),
        tokens=steps * parent.batch_tokens,
        optimizer=replace(parent.optimizer, lr=0.001),
        parent=key_of(parent),
        parent_dir=parent_dir,
        growth=RECIPE.key_settings(),
        rates=RateSpec(parent.model.tokens, 1.0, 0, 0, new=3.0, per_row_bias=False, new_second_moment=False),
    )
