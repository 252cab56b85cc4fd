"""Dry steps, which run before training and update no weights. On CUDA, the micro-batch probe halves the micro-batch
that the memory model has chosen until a dry step fits in memory. If the model is compiled, dry steps trigger the
compilation before the first training step is timed."""

import contextlib
import gc
import time
from dataclasses import replace

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tfscale.checkpoint import Ranks
from tfscale.stage.layout import Layout, halved
from tfscale.stage.spec import StageSpec
from tfscale.training.device import Device, is_out_of_memory

MEASURED_SHARE = 0.92
"""Fraction of the device memory available to the process that a measured dry step may take. The remaining memory allows
for fragmentation."""


def probe_micro_batch(
    objective: nn.Module, layout: Layout, rows: int, spec: StageSpec, device: Device, world: Ranks
) -> Layout:
    """Return the layout with the micro-batch halved until a dry step on a batch of `rows` sequences, together with the
    optimizer state, takes at most `MEASURED_SHARE` of the memory available to the process on every rank.

    Only micro-batches that the memory model has chosen are tested, and only on CUDA: on a CPU, a process that needs too
    much memory would swap or be killed. Sharded models are not tested, because a rank that is out of memory would leave
    the other ranks waiting. Without a test, the orchestrator halves the micro-batch after an out-of-memory error.
    """
    if device.kind != "cuda" or layout.sharding != "none" or layout.micro_batch_by != "memory model":
        return layout
    kept = spec.optimizer.bytes_per_weight(spec.model) * sum(weight.numel() for weight in objective.parameters())

    def fits(sequences: int) -> bool:
        peak: float = torch.inf
        try:
            peak = measure_peak(objective, sequences, rows, spec, device) + kept
        except RuntimeError as fault:
            if not is_out_of_memory(fault):
                raise
        gc.collect()
        torch.cuda.empty_cache()
        usable = MEASURED_SHARE * (torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved())
        return not world.any(peak > usable)[0]

    return replace(layout, micro_batch=halved(layout.micro_batch, fits), micro_batch_by="dry step")


def measure_peak(objective: nn.Module, sequences: int, rows: int, spec: StageSpec, device: Device) -> int:
    """Return the peak memory in bytes of the forward and backward passes of a step on a batch of `rows` sequences, in
    micro-batches of `sequences` sequences. A dry step that is not measured runs first, because torch takes additional
    memory while it selects kernels."""
    dry_step(objective, sequences, spec, device)
    return dry_step(objective, sequences, spec, device, micro_batches=2 if sequences < rows else 1)


def warm_up(objective: nn.Module, layout: Layout, rows: int, spec: StageSpec, device: Device) -> float:
    """Run a dry step for each micro-batch shape of a batch of `rows` sequences if the model is compiled, so that no
    training step includes compilation. Return the time in seconds. The weights may be uninitialised."""
    started = time.perf_counter()
    if device.compiled:
        for sequences in {layout.micro_batch, rows % layout.micro_batch} - {0}:
            dry_step(objective, sequences, spec, device)
    return time.perf_counter() - started


def dry_step(objective: nn.Module, sequences: int, spec: StageSpec, device: Device, micro_batches: int = 1) -> int:
    """Run the forward and backward passes of micro-batches of `sequences` synthetic sequences, and discard the
    gradients. Return the peak memory in bytes, and reset the peak on CUDA. With 2 micro-batches, the peak includes the
    accumulated gradients of the first micro-batch; further micro-batches would not increase the peak."""
    tokens = torch.arange(sequences * spec.model.context, device=device.kind) % spec.model.vocab_size
    tokens = tokens.view(sequences, spec.model.context)
    alone = objective.no_sync() if isinstance(objective, DistributedDataParallel) else contextlib.nullcontext()
    devices = [torch.cuda.current_device()] if device.kind == "cuda" else []
    with torch.random.fork_rng(devices), alone:
        try:
            for _ in range(micro_batches):
                with device.autocast():
                    loss = objective(tokens, tokens)
                loss.backward()
                del loss
            return device.peak_memory()
        finally:
            objective.zero_grad(set_to_none=True)
            device.reset_peak_memory()
