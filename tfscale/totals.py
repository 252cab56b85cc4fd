"""The cost of training, as it is recorded in checkpoints, events and results."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Totals:
    """The cost of a lineage so far, parents included, or of a part of it."""

    tokens: int = 0
    flops: int = field(default=0, metadata={"largest": 10**30})  # a 1.4B chain passes what 64 bits can count
    """Model FLOPs: forward and backward passes, as `tfscale.models.counts` counts them."""
    seconds: float = 0.0
    """Time in training steps; evaluation, checkpoints and growth are left out."""
    device_seconds: float = 0.0
    """`seconds` times the devices."""
    joules: float | None = None
    """Energy of the devices in those seconds, as they measure it; None where a part of it is not known."""

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(*(None if None in pair else sum(pair) for pair in self._beside(other)))

    def __sub__(self, other: "Totals") -> "Totals":
        return Totals(*(None if None in pair else pair[0] - pair[1] for pair in self._beside(other)))

    def _beside(self, other: "Totals") -> Iterator[tuple[Any, Any]]:
        return zip(astuple(self), astuple(other), strict=True)


NOTHING = Totals()
