"""The cost of training, as it is recorded in checkpoints, events and results."""

from dataclasses import dataclass, field


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
        return Totals(
            self.tokens + other.tokens,
            self.flops + other.flops,
            self.seconds + other.seconds,
            self.device_seconds + other.device_seconds,
            None if self.joules is None or other.joules is None else self.joules + other.joules,
        )

    def __sub__(self, other: "Totals") -> "Totals":
        return Totals(
            self.tokens - other.tokens,
            self.flops - other.flops,
            self.seconds - other.seconds,
            self.device_seconds - other.device_seconds,
            None if self.joules is None or other.joules is None else self.joules - other.joules,
        )


NOTHING = Totals()
