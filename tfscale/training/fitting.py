"""What fits into a device, where a stage's settings leave it open: how it is sharded, what is recomputed, how many
sequences are held at once."""

import contextlib
import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tfscale.models.counts import MEMORY_SHARE, memory
from tfscale.models.execution import Execution, Recompute
from tfscale.stage.events import Event
from tfscale.stage.spec import StageSpec
from tfscale.training.device import Device
from tfscale.training.world import Ranks, World

Sharding = Literal["none", "full", "hybrid"]
"""Of weights, gradients and moments: whole on each rank, divided among all, or among the ranks of a host."""

MEASURED_SHARE = 0.92
"""Of a device's memory, what a measured step may take; the allocator's gaps need the rest."""


EVALUATION_TOKENS = {"cpu": 4_096, "cuda": 16_384}
"""Tokens of one forward pass of an evaluation, if so many fit: more are slower on a CPU, whose caches they leave."""


@dataclass(frozen=True)
class Fit:
    """How a stage is laid out on its devices."""

    sharding: Sharding
    recompute: Recompute
    micro_batch: int
    """Sequences that each rank holds at once."""
    evaluation_batch: int
    """The same, in evaluations."""
    micro_batch_by: str
    """How the micro-batch was come by: `set`, `as before`, `whole batch`, `memory model` or `dry step`."""
    lanes: int = 1
    """Batches that an evaluation works on at the same time."""


def fit(spec: StageSpec, device: Device, world: World, rows: int, free: int, before: Event | None) -> Fit:
    """Decides what `auto` means, the same on each rank.

    Args:
        rows: sequences of a batch that each rank takes.
        free: bytes that this rank may take; the leading rank's count.
        before: the last `start` event of as many ranks. What it says is kept: the same sums in the same order.

    Raises:
        ValueError: a setting that these ranks cannot follow.
    """
    before = before or {}
    room: float = MEMORY_SHARE * world.share(free)
    state_bytes = spec.optimizer.bytes_per_weight(spec.model)

    def fits(sequences: int, recompute: Recompute, shards: int) -> bool:
        in_backward = spec.run.update == "in_backward"
        share = Execution(sequences, 2 if device.bf16 else 4, recompute, in_backward, shards, device.kind, state_bytes)
        return memory(spec.model, share).total <= room

    recomputes = _recomputes(spec, before)
    sharding = _sharding(spec, world, before, lambda: fits(1, recomputes[0], 1))
    shards = _shards(sharding, world)
    recompute = next((each for each in recomputes if fits(1, each, shards)), recomputes[-1])
    micro_batch, by = _micro_batch(spec, rows, before, lambda size: fits(size, recompute, shards))
    # Evaluating keeps no more than training that recomputes every block.
    most = max(1, EVALUATION_TOKENS[device.kind] // spec.model.context)
    evaluated = int(before.get("evaluation_batch", halved(most, lambda size: fits(size, "blocks", shards))))
    alone = device.kind == "cpu" and not device.compiled and world.size == 1
    fewer = range(spec.run.lanes if alone else 1, 1, -1)
    lanes = next((each for each in fewer if fits(each * evaluated, "blocks", shards)), 1)
    return Fit(sharding, recompute, micro_batch, evaluated, by, lanes)


def _micro_batch(spec: StageSpec, rows: int, before: Event, fits: Callable[[int], bool]) -> tuple[int, str]:
    if spec.run.update == "in_backward":
        return rows, "whole batch"
    if spec.run.micro_batch:
        return min(rows, spec.run.micro_batch), "set"
    if before:
        return min(rows, int(before["micro_batch"])), "as before"
    return halved(rows, fits), "memory model"


def _shards(sharding: Sharding, world: World) -> int:
    return {"none": 1, "full": world.size, "hybrid": world.local_size}[sharding]


def _recomputes(spec: StageSpec, before: Event) -> tuple[Recompute, ...]:
    """What may be recomputed, in the order of its cost."""
    asked = spec.run.recompute if spec.run.recompute != "auto" else before.get("recompute", "auto")
    if asked != "auto":
        return (asked,)
    return spec.model.recomputes


def _sharding(spec: StageSpec, world: World, before: Event, fits_whole: Callable[[], bool]) -> Sharding:
    asked = spec.run.sharding if spec.run.sharding != "auto" else before.get("sharding", "auto")
    if world.size == 1:
        return "none"
    if asked == "auto":
        return "none" if fits_whole() else "full"
    if asked == "hybrid" and world.size % world.local_size:
        raise ValueError(
            f"launcher.sharding=hybrid needs as many processes on each host; {world.size} in all, {world.local_size} "
            "here. Use full."
        )
    if asked == "hybrid" and world.local_size in (1, world.size):  # one of its two dimensions would be empty
        return "none" if world.local_size == 1 else "full"
    sharding: Sharding = asked
    return sharding


def check_update(spec: StageSpec, world: Ranks, rows: int) -> None:
    """Makes sure that `update=in_backward` can be followed.

    Raises:
        ValueError: it cannot; the message says which settings do not go with it.
    """
    run = spec.run
    if run.update != "in_backward":
        return
    faults = []
    if world.size > 1:
        faults.append(f"it is for one process, and there are {world.size}")
    if 0 < run.micro_batch < rows:
        faults.append(f"it takes a whole batch at once: launcher.micro_batch={run.micro_batch}, and a batch has {rows} "
                      "sequences; use auto, or lower optim.batch_tokens")  # fmt: skip
    if spec.optimizer.clip:
        faults.append(f"the gradients' norm is known too late to clip them: optim.clip={spec.optimizer.clip}; use 0")
    if run.non_finite == "skip":
        faults.append("a bad gradient is known too late to leave its update out: launcher.non_finite=skip; use "
                      "rollback or raise")  # fmt: skip
    if faults:
        raise ValueError(f"launcher.update=in_backward: {'; '.join(faults)}")


def halved(size: int, fits: Callable[[int], bool]) -> int:
    """The first of size, size / 2, ... 1 that fits; 1 if none does."""
    while size > 1 and not fits(size):
        size = -(-size // 2)
    return size


def measured(fit: Fit, objective: nn.Module, spec: StageSpec, device: Device, world: Ranks) -> Fit:
    """Corrects a micro-batch that the memory model has found by trying it, on CUDA: the first of it, half of it, ...
    with which a step leaves a margin on every rank.

    On the CPU nothing is tried: what does not fit there is not refused, but swaps or is killed. Neither where ranks
    share weights: one that runs out of memory would leave the others waiting. The supervisor halves then.
    """
    if device.kind != "cuda" or fit.sharding != "none" or fit.micro_batch_by != "memory model":
        return fit
    kept = spec.optimizer.bytes_per_weight(spec.model) * sum(weight.numel() for weight in objective.parameters())

    def fits(sequences: int) -> bool:
        torch.cuda.reset_peak_memory_stats()
        peak: float = torch.inf
        with contextlib.suppress(torch.OutOfMemoryError):
            dry_step(objective, sequences, spec, device)
            peak = torch.cuda.max_memory_allocated() + kept
        gc.collect()
        torch.cuda.empty_cache()
        usable = MEASURED_SHARE * (torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved())
        return not world.any(peak > usable)[0]

    return replace(fit, micro_batch=halved(fit.micro_batch, fits), micro_batch_by="dry step")


def dry_step(objective: nn.Module, sequences: int, spec: StageSpec, device: Device) -> None:
    """A forward and a backward pass of made-up tokens, of which nothing stays."""
    tokens = torch.arange(sequences * spec.model.context, device=device.kind) % spec.model.vocab_size
    tokens = tokens.view(sequences, spec.model.context)
    alone = objective.no_sync() if isinstance(objective, DistributedDataParallel) else contextlib.nullcontext()
    devices = [torch.cuda.current_device()] if device.kind == "cuda" else []
    with torch.random.fork_rng(devices), alone:
        try:
            with device.autocast():
                loss = objective(tokens, tokens)
            loss.backward()
        finally:
            objective.zero_grad(set_to_none=True)
