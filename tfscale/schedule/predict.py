"""What a plan will cost on this machine, before it is spent."""

import json
import math
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfscale.faults import UserFault
from tfscale.models.counts import MEMORY_SHARE, flops, memory, parameters
from tfscale.models.execution import Execution
from tfscale.schedule.arms import ArmStage
from tfscale.schedule.ledger import is_done
from tfscale.schedule.plan import Plan

if TYPE_CHECKING:
    import torch

ASSUMED_EFFICIENCY = 0.4
"""Share of the matrix-multiply peak that training is assumed to reach where nothing of the kind has been measured."""
PATIENCE_SECONDS = 30 * 86_400
"""A plan that would take a CPU longer than this is refused unless launcher.device=cpu insists."""


@dataclass(frozen=True)
class Machine:
    """What stages would run on."""

    device: str
    name: str
    memory: int
    """Bytes."""
    peak: float
    """FLOP/s of a large matrix product, measured just now."""


@dataclass(frozen=True)
class Prediction:
    """What a stage will cost."""

    parameters: int
    flops: int
    memory: int
    """Bytes on the device, with the largest micro-batch that fits, or with one sequence where none does."""
    fits: bool
    seconds: float
    measured: bool
    """Whether the time rests on finished stages of this machine, or on an assumed share of the peak."""


def this_machine(device: str) -> Machine:
    """Looks at the machine and measures its matrix-multiply peak, which takes a second.

    Args:
        device: auto, cpu or cuda, as in launcher.device.
    """
    import psutil
    import torch

    kind = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserFault(["launcher.device=cuda, but torch finds no CUDA device; use auto or cpu"])
    if kind == "cuda":
        properties = torch.cuda.get_device_properties(0)
        return Machine(kind, properties.name, properties.total_memory, _peak(8192, kind, torch.bfloat16))
    name = f"CPU, {os.cpu_count()} cores"
    return Machine(kind, name, psutil.virtual_memory().total, _peak(1024, kind, torch.float32))


def _peak(size: int, device: str, dtype: "torch.dtype") -> float:
    import torch

    a = torch.randn(size, size, device=device, dtype=dtype)
    best = math.inf
    for _ in range(5):
        started = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - started)
    return float(2 * size**3 / best)


def predict(stage: ArmStage, machine: Machine, rates: list[tuple[int, float]]) -> Prediction:
    """The cost of one stage.

    Args:
        rates: from `measured_rates`.
    """
    spec = stage.spec
    count, work = parameters(spec.model), spec.tokens * flops(spec.model).training
    size = min(spec.run.micro_batch or spec.sequences, spec.sequences)
    width = 2 if machine.device == "cuda" else 4
    while not spec.run.micro_batch and size > 1 and memory(spec.model, Execution(size, width)).total > _room(machine):
        size = -(-size // 2)
    needed = memory(spec.model, Execution(size, width)).total
    near = [rate for other, rate in rates if 0.5 <= other / count <= 2]
    rate = sorted(near)[len(near) // 2] if near else ASSUMED_EFFICIENCY * machine.peak
    return Prediction(count, work, needed, needed <= _room(machine), work / rate, bool(near))


def _room(machine: Machine) -> float:
    return MEMORY_SHARE * machine.memory


def measured_rates(runs: Path, machine: Machine) -> list[tuple[int, float]]:
    """(parameters, FLOP/s) of the stages that have been finished on this host and device."""
    rates = []
    for done in (runs / "stages").glob("*/done.json"):
        folder = done.parent
        try:
            environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
            speed = json.loads(done.read_text(encoding="utf-8"))["speed"]
            rate = (int(speed["parameters"]), float(speed["flops_per_second"]))
            on_cuda = environment["device"] == machine.name
            here = environment["host"] == socket.gethostname() and on_cuda == (machine.device == "cuda")
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not of this version: no measurement, and no harm
        if here and rate[1] > 0:
            rates.append(rate)
    return rates


def preflight(plan: Plan) -> list[str]:
    """What keeps a plan from being run here, each fault with its mend. Nothing is written."""
    faults = [f"data: {fault}" for fault in plan.corpus.missing]
    if faults:
        faults.append(
            "data: data.path and data.tokenizer_path say where the text and its tokenizer are; data=wiki and data=docs "
            "need no files"
        )
    faults += _unwritable(plan.runs)
    left = [stage for stage in plan.stages if not is_done(stage)]
    if not left:
        return faults
    machine = this_machine(plan.experiment.launcher.device)
    rates = measured_rates(plan.runs, machine)
    predictions = [(stage, predict(stage, machine, rates)) for stage in left]
    for stage, prediction in predictions:
        if not prediction.fits:
            faults.append(
                f"memory: {stage.spec.label} needs {gigabytes(prediction.memory)} with {_micro_batch(stage)}, and this "
                f"machine ({machine.name}) has {gigabytes(machine.memory)}; use a larger device"
            )
    seconds = sum(prediction.seconds for _, prediction in predictions)
    if machine.device == "cpu" and plan.experiment.launcher.device == "auto" and seconds > PATIENCE_SECONDS:
        faults.append(
            f"device: this would take the CPU about {duration(seconds)}; run it where torch finds a CUDA device, or "
            "say launcher.device=cpu to insist"
        )
    return faults


def _micro_batch(stage: ArmStage) -> str:
    size = stage.spec.run.micro_batch
    return f"launcher.micro_batch={size}" if size else "one sequence at a time"


def _unwritable(runs: Path) -> list[str]:
    folder = runs
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return [f"runs={runs}: {folder} is not a folder; set runs=... to a folder that can be written"]
    if not os.access(folder, os.W_OK | os.X_OK | os.R_OK):
        return [f"runs={runs}: {folder} cannot be written; set runs=... to a folder that can"]
    return []


def gigabytes(count: int) -> str:
    """1.4 GB, 34 MB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def duration(seconds: float) -> str:
    """45 s, 3 min 20 s, 2 h 5 min, 4 days, 470 years."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < 86_400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    if seconds < 2 * 365 * 86_400:
        return f"{seconds / 86_400:,.0f} days"
    return f"{seconds / 86_400 / 365:,.0f} years"
