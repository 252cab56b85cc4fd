"""Checks that training works correctly on a device. Losses and gradients must agree with results in float64, a stopped
stage must resume correctly, and the peak memory must agree with the planned memory."""

import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from typing import Literal

import torch

from tfscale import checkpoint
from tfscale.bench.settings import resolve_settings
from tfscale.bench.sizes import Size, tokenformer, transformer
from tfscale.bench.trained import OURS, planned_memory
from tfscale.doctor.agreement import LOSS_BOUND_NATS, PEAK_SHARE, WAYS, make_reference, measure_errors
from tfscale.doctor.stages import StageFailed, events_of, small_stage, start_training, write_corpus
from tfscale.faults import PREEMPTED
from tfscale.stage.result import read_result
from tfscale.stage.spec import CHECKPOINTS, RunSpec, StageSpec, write_spec
from tfscale.text import gigabytes

STEPS = {"cpu": 60, "cuda": 400}
EVENTS_BEFORE_STOP = 3
STOPS = 5
POLL_SECONDS = 0.002


@dataclass(frozen=True)
class Outcome:
    """Result of a check, with a description for the user."""

    name: str
    ok: bool
    words: str


def check_device(device: Literal["cpu", "cuda"]) -> Iterator[Outcome]:
    """Check a device, and yield the outcome of each check. On a CPU, models are smaller, no model is compiled, and the
    peak memory is not checked."""
    yield from _agreement(device)
    yield _resume(device)
    if device == "cuda":  # the memory of a CPU process is not counted exactly
        yield _memory()


def _agreement(device: Literal["cpu", "cuda"]) -> Iterator[Outcome]:
    n, shape = (576, (2, 768, 12, 256, 50_304)) if device == "cuda" else (72, (2, 64, 4, 32, 512))
    for name, config in {"tokenformer": tokenformer(n, *shape), "transformer": transformer(*shape)}.items():
        reference = make_reference(config)
        for way in WAYS:
            if way.compiled and device == "cpu":
                continue
            try:
                found = measure_errors(reference, way, device)
            except Exception as error:  # a compiler or driver may raise any type of error; later checks still run
                yield Outcome(name, False, f"{way}: {type(error).__name__}: {str(error)[:300]}")
                continue
            bits = "repeats bit for bit" if not found.unequal else "repeats up to rounding"
            words = f"{way}: relative error of losses {found.losses:.1g}, of gradients {found.gradients:.1g}; {bits}"
            yield Outcome(name, found.within(way.precision), words)


def _resume(device: Literal["cpu", "cuda"]) -> Outcome:
    try:
        found = measure_resume(device)
    except StageFailed as error:
        return Outcome("resume", False, str(error))
    how = "bit for bit" if found.bit_equal else f"up to rounding, {found.loss_error:.1g} nats apart"
    words = f"a stopped and resumed stage has the same result as an uninterrupted stage, {how}"
    return Outcome("resume", found.loss_error <= LOSS_BOUND_NATS, words)


@dataclass(frozen=True)
class Resumed:
    """Comparison between an uninterrupted stage and a stage with the same spec that was stopped and resumed."""

    stopped_at_step: int
    bit_equal: bool
    """True if the final weights are bit-equal."""
    loss_error: float
    """Absolute difference between the final validation losses in nats per token."""


def measure_resume(device: Literal["cpu", "cuda"]) -> Resumed:
    """Train a small stage twice in processes like those of `tfscale run`, once without interruption and once stopped
    and resumed, and compare the results. Raise StageFailed if a process fails, or if all `STOPS` attempts to stop the
    stage come too late."""
    spec = small_stage(RunSpec(data_dir="../data", device=device, threads=1), STEPS[device])
    with TemporaryDirectory() as name:
        whole, stopped = Path(name) / "whole", Path(name) / "stopped"
        write_corpus(Path(name) / "data", spec.model.vocab_size, spec.tokens + spec.model.context, 4096)
        write_spec(whole, spec)
        first = start_training(whole)
        _train_until_stopped(stopped, spec)
        step = events_of(stopped, "end")[-1]["step"]
        start_training(stopped).finish()
        first.finish()
        ours, base = weights(stopped), weights(whole)
        losses = [events_of(folder, "eval")[-1]["loss"] for folder in (whole, stopped)]
    equal = all(torch.equal(ours[each], base[each]) for each in base)
    return Resumed(step, equal, abs(losses[0] - losses[1]))


def _train_until_stopped(stage: Path, spec: StageSpec) -> None:
    for _ in range(STOPS):
        shutil.rmtree(stage, ignore_errors=True)
        write_spec(stage, spec)
        process = start_training(stage)
        while process.process.poll() is None and len(events_of(stage, "train")) < EVENTS_BEFORE_STOP:
            sleep(POLL_SECONDS)
        process.process.send_signal(signal.SIGTERM)
        if process.process.wait():
            process.finish(PREEMPTED)
            return
    raise StageFailed(f"in {STOPS} attempts the stage was done before it could be stopped")


def weights(stage: Path) -> dict[str, torch.Tensor]:
    """Return the final weights of a finished stage, by the name of the tensor in the checkpoint."""
    last = stage / CHECKPOINTS / read_result(stage).checkpoint
    shapes = {name: shape for name, shape in checkpoint.shapes(last).items() if name.startswith("model/")}
    tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
    checkpoint.read(last, tensors)
    return tensors


def _memory() -> Outcome:
    """Compare the measured peak memory of a training step with the planned memory. As in gradient accumulation, the
    gradients of an earlier micro-batch are in memory when the measured step starts."""
    config = tokenformer(576)
    size = Size("124M", config, transformer(), sequences=8, time=config.context)
    made = OURS.build(size, resolve_settings("cuda", quick=False, threads=0))
    made.step()
    torch.cuda.reset_peak_memory_stats()
    made.compute_gradients()
    made.step()
    peak = torch.cuda.max_memory_allocated()
    planned = planned_memory(config, size.sequences, "cuda")
    words = f"peak of a step with 124M parameters {gigabytes(peak)}, planned {gigabytes(planned)}"
    return Outcome("memory", abs(peak / planned - 1) <= PEAK_SHARE, words)
