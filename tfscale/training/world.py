"""The processes that train a stage together: one alone, unless torchrun has started several."""

import gc
import json
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tfscale.models.language_model import LanguageModel


class World:
    """Rank and size, and what the ranks have to agree on. Everything here is a collective call: each rank makes it."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if self.size > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")

    @property
    def leads(self) -> bool:
        """Whether this rank is the one that writes."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """The sum of each value over the ranks, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return [float(value) for value in total]

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is up on any rank."""
        return [bool(value) for value in self.sum(*(float(flag) for flag in flags))]

    def share(self, value: Any) -> Any:
        """The leading rank's value, which JSON can hold, on every rank."""
        if self.size == 1:
            return value
        content = json.dumps(value).encode() if self.leads else b""
        length = torch.tensor([len(content)])
        dist.broadcast(length, src=0)
        buffer = torch.zeros(int(length), dtype=torch.uint8)
        if self.leads:
            buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        dist.broadcast(buffer, src=0)
        return json.loads(bytes(buffer.tolist()))

    def barrier(self) -> None:
        """Returns when every rank is here."""
        self.sum(0.0)

    def close(self) -> None:
        """Leaves the others."""
        if self.size > 1:
            gc.collect()  # what still holds on to the group, DDP's own cycles, must not outlive it
            dist.destroy_process_group()


class Objective(nn.Module):
    """The summed loss of a batch as a module's forward pass, which is what data parallelism wraps."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Nats, summed over the tokens [batch, time]."""
        return self.model.loss(inputs, targets, reduction="sum")


def parallelize(model: LanguageModel, world: World, compiled: bool) -> nn.Module:
    """The objective as it is trained: compiled if asked, then with gradients averaged over the ranks (DDP)."""
    objective: nn.Module = Objective(model)
    if compiled:
        objective.compile()
    return DistributedDataParallel(objective) if world.size > 1 else objective


def split_rows(sequences: int, world: World) -> int:
    """Sequences of a batch that each rank takes.

    Raises:
        ValueError: they cannot be shared out evenly.
    """
    if sequences % world.size:
        raise ValueError(
            f"optim.batch_tokens holds {sequences} sequences, which {world.size} processes cannot share evenly; take a "
            "number of processes that divides it"
        )
    return sequences // world.size
