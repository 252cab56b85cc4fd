"""Records of the progress of training: events in metrics.jsonl (`tfscale.stage.events`) and the heartbeat file."""

import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfscale.checkpoint import Counters
from tfscale.stage.events import HEARTBEAT, EventLog
from tfscale.stage.layout import Layout
from tfscale.stage.result import FinalEvaluation
from tfscale.stage.spec import StageSpec
from tfscale.training.device import Device
from tfscale.training.world import World

WINDOW = 128
"""Maximum number of recent losses that are kept for `spike_score`."""
LEAST = 16
"""Minimum number of recent losses that `spike_score` requires."""


def spike_score(loss: float, recent: Sequence[float]) -> float | None:
    """Return the number of standard deviations by which a loss exceeds the mean of the recent losses. Return 0 if the
    recent losses are all equal, and None if there are fewer than `LEAST` recent losses."""
    if len(recent) < LEAST:
        return None
    spread = statistics.pstdev(recent)
    return (loss - statistics.fmean(recent)) / spread if spread else 0.0


class Journal(EventLog):
    """Writer of the training events and the heartbeat file of a stage. Only the leading rank writes events. Every rank
    updates the heartbeat file."""

    def __init__(self, stage_dir: Path, spec: StageSpec, device: Device, world: World) -> None:
        super().__init__(stage_dir if world.leads else None)
        self._spec, self._device, self._world = spec, device, world
        self._logged_at = (0, 0.0)  # step and total seconds at the last `train` or `start` event
        self._heartbeat, self._last_beat = stage_dir / HEARTBEAT, -math.inf

    def beat(self) -> None:
        """Touch the heartbeat file, unless this process has touched the file less than a second ago. The orchestrator
        stops and resumes a stage if the modification time of the file does not change for `launcher.hang_minutes`."""
        now = time.monotonic()
        if now - self._last_beat >= 1:
            self._heartbeat.touch()
            self._last_beat = now

    def started(self, counters: Counters, layout: Layout) -> None:
        """Write a `start` event when training starts, resumes, or continues after a rollback."""
        self._logged_at = (counters.step, counters.totals.seconds)
        host, pid = os.uname().nodename, os.getpid()
        where = {"host": host, "pid": pid, "device": self._device.kind, "processes": self._world.size}
        self.write("start", step=counters.step, **where, **asdict(layout))

    def trained(self, counters: Counters, loss: float, norm: float, rate: float) -> None:
        """Write a `train` event with the measurements of a step. `counters` already includes the step, but
        `counters.recent_losses` does not yet include the loss of the step.

        Args:
            loss: mean training loss of the batch in nats per token.
            norm: norm of all gradients over all ranks, before clipping.
            rate: learning rate of the step.
        """
        self.write(
            "train",
            **self._position(counters),
            loss=loss,
            lr=rate,
            grad_norm=norm,
            spike=spike_score(loss, counters.recent_losses),
            tokens_per_second=self._speed(counters),
            peak_memory=self._device.peak_memory(),
        )

    def evaluated(self, counters: Counters, evaluation: FinalEvaluation) -> None:
        """Write an `eval` event with the results of an evaluation."""
        self.write("eval", **self._position(counters), **asdict(evaluation))

    def _position(self, counters: Counters) -> dict[str, Any]:
        known = {f"total_{name}": value for name, value in asdict(counters.totals).items() if value is not None}
        return {"step": counters.step, "tokens": counters.step * self._spec.batch_tokens, **known}

    def _speed(self, counters: Counters) -> float | None:
        """Return the number of tokens per second since the last `train` or `start` event, or None if no time has
        passed."""
        step, seconds = self._logged_at
        self._logged_at = (counters.step, counters.totals.seconds)
        elapsed = counters.totals.seconds - seconds
        return (counters.step - step) * self._spec.batch_tokens / elapsed if elapsed > 0 else None
