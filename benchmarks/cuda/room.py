"""Part `room`: real stages, trained, repeated, stopped and resumed, and grown, by the product's own processes."""

import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.cuda.bounds import GROWTH_NATS, TWIN_NATS
from benchmarks.cuda.check import Check, worst
from benchmarks.cuda.failures import NotMeasured
from benchmarks.cuda.processes import StageProcess, events_of, start_growing, start_training
from benchmarks.cuda.stages import grown_stage, small_stage, write_corpus, write_stage
from tfscale import checkpoint
from tfscale.faults import PREEMPTED
from tfscale.stage.environment import read_environment
from tfscale.stage.result import DONE_FILE, read_result
from tfscale.stage.spec import CHECKPOINTS, RunSpec, StageSpec

EVENTS_BEFORE_STOP = 3
POLL_SECONDS = 0.002
STOPS = 5
"""Attempts to stop a stage before it is done, which a busy machine may miss."""
LAYOUT = ("micro_batch", "micro_batch_by", "recompute", "evaluation_batch", "device")


@dataclass(frozen=True)
class Room:
    """The folder that the stages lie in."""

    folder: Path
    base: StageSpec

    def write(self, name: str, spec: StageSpec | None = None, **run: Any) -> Path:
        """Write a stage that has not begun: the base stage unless told otherwise, with changed run settings."""
        spec = spec or self.base
        write_stage(self.folder / name, replace(spec, run=replace(spec.run, **run)))
        return self.folder / name


def room(check: Check) -> None:
    """Train a small stage, then its twins and its child."""
    folder = check.out / "room"
    shutil.rmtree(folder, ignore_errors=True)
    steps, grown_steps = (60, 8) if check.tiny else (391, 125)
    precision: Literal["auto", "bf16"] = "auto" if check.on_cuda else "bf16"
    base = small_stage(RunSpec(data_dir="../data", device=check.device, precision=precision, threads=1), steps)
    write_corpus(folder / "data", base.model.vocab_size, base.tokens + grown_steps * base.batch_tokens, 4096)
    made = Room(folder, base)
    attempt = check.record.attempt
    if not attempt("base stage", partial(_base, made, check.on_cuda)):
        return
    twins = _start_twins(made)
    _compare(check, "stopped and resumed", partial(_stopped, made))
    for name, process in twins.items():
        _compare(check, f"{name}, against the base stage", partial(_against_base, made, process))
    grown = attempt("grown stage", partial(_grown, made, grown_steps))
    if grown:
        off = abs(grown["loss_at_step_0"] - grown["parent_loss"])
        check.record.bounded("grown stage: loss at step 0 minus its parent's, nats", off, GROWTH_NATS)
    shutil.rmtree(folder)


def _compare(check: Check, name: str, measure: Callable[[], Mapping[str, Any]]) -> None:
    found = check.record.attempt(name, measure)
    if found:
        check.record.bounded(f"{name}: last loss, nats", found["loss_off"], TWIN_NATS)


def _base(made: Room, on_cuda: bool) -> Mapping[str, Any]:
    stage = made.write("base")
    start_training(stage).finish()
    start = events_of(stage, "start")[-1]
    environment = read_environment(stage)
    ways = (start["device"], environment.precision, environment.compiled)
    if on_cuda and ways != ("cuda", "bf16", True):
        raise NotMeasured(f"the stage was trained with device, precision, compiled = {ways}")
    return {
        "layout": {name: start[name] for name in LAYOUT},
        "loss": events_of(stage, "eval")[-1]["loss"],
        "tokens_per_second": [event["tokens_per_second"] for event in events_of(stage, "train")[-3:]],
    }


def _start_twins(made: Room) -> dict[str, StageProcess]:
    """Stages that compute the same in other ways, side by side: their speed is not looked at."""
    unclipped = replace(made.base, optimizer=replace(made.base.optimizer, clip=0.0))
    folders = {
        "again": made.write("again"),
        "fp32, eager": made.write("fp32", precision="fp32", compile="off"),
        "update=in_backward": made.write("in_backward", unclipped, update="in_backward"),
        "micro_batch=3": made.write("micro", micro_batch=3),
    }
    return {name: start_training(folder) for name, folder in folders.items()}


def _stopped(made: Room) -> Mapping[str, Any]:
    for attempt in range(STOPS):
        stage = made.write(f"stopped_{attempt}")
        process = start_training(stage)
        while process.process.poll() is None and len(events_of(stage, "train")) < EVENTS_BEFORE_STOP:
            sleep(POLL_SECONDS)
        process.process.send_signal(signal.SIGTERM)
        process.process.wait()
        if not (stage / DONE_FILE).exists():
            process.finish(PREEMPTED)
            step = events_of(stage, "end")[-1]["step"]
            return {"stopped_at_step": step, **_against_base(made, start_training(stage))}
    raise NotMeasured(f"in {STOPS} attempts the stage was done before it could be stopped")


def _against_base(made: Room, process: StageProcess) -> Mapping[str, Any]:
    """The distance of a finished twin's weights from the base stage's."""
    process.finish()
    ours, base = _weights(process.folder), _weights(made.folder / "base")
    loss, base_loss = (events_of(folder, "eval")[-1]["loss"] for folder in (process.folder, made.folder / "base"))
    return {
        "bit_equal": all(torch.equal(ours[name], base[name]) for name in base),
        "largest_relative_difference": worst(ours, base)[0],
        "loss": loss,
        "loss_off": abs(loss - base_loss),
        "micro_batch_by": events_of(process.folder, "start")[-1]["micro_batch_by"],
    }


def _weights(stage: Path) -> dict[str, Tensor]:
    last = stage / CHECKPOINTS / read_result(stage).checkpoint
    names = {name: shape for name, shape in checkpoint.shapes(last).items() if name.startswith("model/")}
    tensors = {name: torch.empty(shape) for name, shape in names.items()}
    checkpoint.read(last, tensors)
    return tensors


def _grown(made: Room, steps: int) -> Mapping[str, Any]:
    stage = made.write("grown", grown_stage(made.base, "../base", steps))
    start_growing(stage).finish()
    start_training(stage).finish()
    losses = [event["loss"] for event in events_of(stage, "eval")]
    return {
        "parent_loss": events_of(made.folder / "base", "eval")[-1]["loss"],
        "loss_at_step_0": losses[0],
        "last_loss": losses[-1],
        "checkpoint_seconds": events_of(stage, "checkpoint")[-1]["seconds"],
    }
