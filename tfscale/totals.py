"""Training cost, as recorded in checkpoints, events and results."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Totals:
    """Training cost of a stage and all of its ancestors, or the difference between two such costs."""

    tokens: int = 0
    flops: int = field(default=0, metadata={"largest": 10**30})  # the FLOPs of a 1.4B chain exceed 64 bits
    """Model FLOPs of forward and backward passes, as counted by `tfscale.models.counts`."""
    seconds: float = 0.0
    """Time spent in training steps, in seconds. It excludes compilation, evaluation, checkpoints and growth."""
    device_seconds: float = 0.0
    """Time spent in training steps, in seconds, summed over all devices."""
    joules: float | None = None
    """Energy in joules that the devices used in training steps, or None if it is unknown for any stage."""
    optimizer_flops: int | None = field(default=None, metadata={"largest": 10**30})
    """FLOPs of optimizer updates, which `flops` does not include. None if any stage was imported, or was trained by a
    version of tfscale that did not count these FLOPs."""

    @property
    def spent_on_updates(self) -> int | None:
        """FLOPs of optimizer updates, or None if they are unknown. Without training tokens, the value is 0, even if
        `optimizer_flops` is None."""
        return self.optimizer_flops if self.tokens else 0

    def __add__(self, other: "Totals") -> "Totals":
        return self._plus(1, other)

    def __sub__(self, other: "Totals") -> "Totals":
        return self._plus(-1, other)

    def _plus(self, sign: int, other: "Totals") -> "Totals":
        updates, others = self.spent_on_updates, other.spent_on_updates
        return Totals(
            self.tokens + sign * other.tokens,
            self.flops + sign * other.flops,
            self.seconds + sign * other.seconds,
            self.device_seconds + sign * other.device_seconds,
            None if self.joules is None or other.joules is None else self.joules + sign * other.joules,
            None if updates is None or others is None else updates + sign * others,
        )


NO_COST = Totals()
