"""Training cost that is recorded in checkpoints, events and results."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Totals:
    """Training cost of a stage including all parents, or a part of this cost."""

    tokens: int = 0
    flops: int = field(default=0, metadata={"largest": 10**30})  # the FLOPs of a 1.4B chain exceed 64 bits
    """Model FLOPs of forward and backward passes, as counted by `tfscale.models.counts`."""
    seconds: float = 0.0
    """Time in training steps in seconds, without evaluation, checkpoints and growth."""
    device_seconds: float = 0.0
    """`seconds` times the number of devices."""
    joules: float | None = None
    """Energy in joules during `seconds`, as measured by the devices; None if any part is unknown."""

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
