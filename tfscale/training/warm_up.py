"""Compilation of a training step before the first step is timed."""

import time

from torch import nn

from tfscale.stage.layout import Layout
from tfscale.stage.spec import StageSpec
from tfscale.training.device import Device
from tfscale.training.probe import dry_step


def warm_up(objective: nn.Module, layout: Layout, rows: int, spec: StageSpec, device: Device) -> float:
    """Run a pass for each micro-batch shape of a step, if the model is compiled, and return the time in seconds. The
    time of training steps then includes no compilation. The weights may be uninitialised; no result is kept.

    Args:
        rows: number of sequences of a batch that each rank processes.
    """
    started = time.perf_counter()
    if device.compiled:
        for sequences in {layout.micro_batch, rows % layout.micro_batch} - {0}:
            dry_step(objective, sequences, spec, device)
    return time.perf_counter() - started
