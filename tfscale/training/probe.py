"""Micro-batch probe, which tests the memory model's choice of micro-batch on CUDA and reduces it if necessary."""

import contextlib
import gc
from dataclasses import replace

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tfscale.stage.layout import Layout, halved
from tfscale.stage.spec import StageSpec
from tfscale.training.device import Device
from tfscale.training.world import Ranks

MEASURED_SHARE = 0.92
"""Fraction of a device's memory that a measured step may take. The rest is for the gaps of the allocator."""


def probe_micro_batch(layout: Layout, objective: nn.Module, spec: StageSpec, device: Device, world: Ranks) -> Layout:
    """Return the layout with a micro-batch for which a step leaves a memory margin on every rank. The micro-batch is
    halved until this is the case.

    Only micro-batches that the memory model has chosen are tested, and only on CUDA. On a CPU, a process that needs too
    much memory would swap or be killed. With sharded weights, a rank without memory would leave the others waiting. In
    these cases the orchestrator halves the micro-batch after a failure.
    """
    if device.kind != "cuda" or layout.sharding != "none" or layout.micro_batch_by != "memory model":
        return layout
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

    return replace(layout, micro_batch=halved(layout.micro_batch, fits), micro_batch_by="dry step")


def dry_step(objective: nn.Module, sequences: int, spec: StageSpec, device: Device) -> None:
    """Run a forward and a backward pass on synthetic tokens, and discard the gradients."""
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
