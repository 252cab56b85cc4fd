"""Watching the loss: spikes, numbers that are none, and what a stage does about them."""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfscale.stage.events import HEARTBEAT

WINDOW = 128
"""Losses that a new one is compared with."""
LEAST = 16
"""Losses that make a comparison."""
CLOSE_WATCH_STEPS = 32
"""After a growth, so many steps are logged one by one."""


class NonFinite(Exception):
    """A loss or a gradient is not a number; the message says whether the weights have been kept from it."""


@dataclass(frozen=True)
class BadNumber:
    """A step whose loss or gradient norm is not finite."""

    step: int
    loss: float
    grad_norm: float
    where: tuple[str, ...]
    """Weights whose gradients are not finite."""

    def __str__(self) -> str:
        more = f" and {len(self.where) - 3} others" if len(self.where) > 3 else ""
        spoilt = f"gradients of {', '.join(self.where[:3])}{more}" if self.where else "the loss alone"
        return f"step {self.step}: loss {self.loss}, gradient norm {self.grad_norm}; not finite: {spoilt}"


def spike_score(loss: float, recent: Sequence[float]) -> float | None:
    """Standard deviations that a loss lies above the mean of the recent ones; None while there are too few."""
    if len(recent) < LEAST:
        return None
    spread = statistics.pstdev(recent)
    return (loss - statistics.fmean(recent)) / spread if spread else 0.0


class Heartbeat:
    """A file that a living stage touches, at most once a second. Its supervisor watches the time of the file."""

    def __init__(self, stage_dir: Path) -> None:
        self._path = stage_dir / HEARTBEAT
        self._last = -math.inf

    def __call__(self) -> None:
        """The stage has got on."""
        now = time.monotonic()
        if now - self._last >= 1:
            self._path.touch()
            self._last = now
