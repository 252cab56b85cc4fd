"""Measurement of the cost of training steps: tokens, FLOPs of the model and of the optimizer, seconds and energy."""

import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from tfscale.checkpoint import Counters
from tfscale.models.counts import flops
from tfscale.stage.spec import StageSpec
from tfscale.totals import Totals
from tfscale.training.device import Device
from tfscale.training.world import World


class EnergyMeter:
    """NVML energy counter of one CUDA device. The counter includes the energy of all processes on the device and is
    updated every 20 to 100 milliseconds, so the energy of many steps is accurate, but the energy of a single step is
    not."""

    def __init__(self, device: Device) -> None:
        self._handle: Any = None
        if device.kind != "cuda":
            return
        with suppress(ImportError):
            import pynvml

            with suppress(pynvml.NVMLError):
                pynvml.nvmlInit()
                uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
                handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
                pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                self._nvml, self._handle = pynvml, handle

    @property
    def works(self) -> bool:
        """True if the energy counter can be read, which requires pynvml and a device of the Volta generation or
        later."""
        return self._handle is not None

    def joules(self) -> float:
        """Return the reading of the counter in joules, or 0 without a counter. Only differences between readings are
        meaningful."""
        if self._handle is None:
            return 0.0
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000


class Costs:
    """Meter of the cost of training steps. The energy is counted only if all ranks have an energy counter. The
    constructor is a collective call."""

    def __init__(self, spec: StageSpec, energy: EnergyMeter, world: World) -> None:
        self._world, self._tokens = world, spec.batch_tokens
        self._flops = spec.batch_tokens * flops(spec.model).training
        self._update_flops = spec.optimizer.update_flops(spec.model)
        self._energy, self._energy_known = energy, not world.any(not energy.works)[0]
        self._seconds = 0.0
        self._joules: float | None = None
        """Reading of the energy counter in joules before the steps whose energy has not been counted yet, or None if
        there are no such steps."""

    def begin(self) -> None:
        """Start measuring the time and energy of a step."""
        if self._joules is None:
            self._joules = self._energy.joules()
        self._seconds = -time.perf_counter()

    def end(self) -> None:
        """Finish measuring the time of the step that `begin` started."""
        self._seconds += time.perf_counter()

    def count(self, counters: Counters, updated: bool, timed: bool = True) -> Counters:
        """Return the counters after a step, with all costs of the step except its energy.

        Args:
            updated: True if the weights were updated.
            timed: True if the time between `begin` and `end` is counted. False for a step that is skipped because it
                was non-finite before a rollback.
        """
        before, seconds = counters.totals, self._seconds if timed else 0.0
        if not before.tokens:
            before = replace(before, joules=0.0)  # known at the start of a lineage
        spent = Totals(
            tokens=self._tokens,
            flops=self._flops,
            seconds=seconds,
            device_seconds=seconds * self._world.size,
            joules=0.0 if self._energy_known else None,
            optimizer_flops=self._update_flops * updated,
        )
        return replace(
            counters, step=counters.step + 1, optimizer_step=counters.optimizer_step + updated, totals=before + spent
        )

    def add_energy(self, counters: Counters) -> Counters:
        """Add the energy of the steps since the last call to the counters, and return the result. Call this method
        before the counters are recorded, and before any work other than training, so that the energy of this work is
        not counted. This is a collective call."""
        before = counters.totals.joules
        if self._joules is None or before is None:
            return counters
        [used] = self._world.sum(self._energy.joules() - self._joules)
        self.drop_energy()
        return replace(counters, totals=replace(counters.totals, joules=before + used))

    def drop_energy(self) -> None:
        """Discard the energy of the steps since the last call of `add_energy`, for example because a rollback repeats
        these steps."""
        self._joules = None
