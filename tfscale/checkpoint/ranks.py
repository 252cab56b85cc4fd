"""Communication between the processes that train a stage and write its checkpoints together."""

import json
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """Group of ranks that exchange values. All methods are collective calls: every rank must call them."""

    def __init__(self, rank: int, size: int, group: dist.ProcessGroup | None = None) -> None:
        self.rank, self.size, self._group = rank, size, group

    @property
    def leads(self) -> bool:
        """True on the leading rank, which is the only rank that writes events and results."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Return the sum of each value over all ranks, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self._group)
        return [float(value) for value in total]

    def sum_of(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks, in float64, without waiting for the device."""
        total = tensor.double()
        if self.size > 1:
            dist.all_reduce(total, group=self._group)
        return total

    def any(self, *flags: bool) -> list[bool]:
        """Return for each flag whether the flag is True on at least one rank."""
        return [bool(value) for value in self.sum(*(float(flag) for flag in flags))]

    def share(self, value: Any) -> Any:
        """Return the value of the leading rank on every rank. The value must be JSON-serializable."""
        if self.size == 1:
            return value
        content = json.dumps(value).encode() if self.leads else b""
        length = torch.tensor([len(content)])
        dist.broadcast(length, src=0, group=self._group)
        buffer = torch.zeros(int(length), dtype=torch.uint8)
        if self.leads:
            buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        dist.broadcast(buffer, src=0, group=self._group)
        return json.loads(bytes(buffer.tolist()))

    def barrier(self) -> None:
        """Wait until all ranks have called this method."""
        self.sum(0.0)


ALONE = Ranks(0, 1)
"""Group with a single rank, for a stage with one process."""
