"""Data parallelism: the distribution of a model over the devices of its ranks."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from tfscale.models.language_model import LanguageModel
from tfscale.stage.layout import Layout
from tfscale.training.device import Device
from tfscale.training.sharding import shard
from tfscale.training.world import World


class Objective(nn.Module):
    """Module whose forward pass is the loss of a batch, in the form that data parallelism wraps."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor, each: bool = False) -> Tensor:
        """Return the loss in nats, summed over the tokens [batch, time]; with `each`, summed over each sequence,
        [batch], without gradients."""
        if each:
            return self.model.sequence_losses(inputs, targets)
        return self.model.loss(inputs, targets, reduction="sum")


def parallelize(model: LanguageModel, world: World, device: Device, layout: Layout) -> nn.Module:
    """Return the training objective of a model. Activation checkpointing, compilation of the blocks and data
    parallelism are applied in this order.

    Args:
        model: the model; if it is going to be sharded, it may be on the meta device, to be filled afterwards.

    Returns:
        A wrapped `Objective`, whose backward passes give the mean of the ranks' gradients.
    """
    model.recompute = layout.recompute
    if device.compiled:
        model.compile_parts()
    objective = Objective(model)
    if layout.sharding != "none":
        shard(objective, model.blocks, world, device, hybrid=layout.sharding == "hybrid")
    elif world.size > 1:
        return DistributedDataParallel(objective, gradient_as_bucket_view=True)
    return objective


def gathering(objective: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Return a context for one micro-batch; the ranks' gradients are reduced after the last micro-batch of a batch.

    Whole gradients (DDP) are reduced once per batch. Sharded gradients are reduced within a copy of the model after
    every micro-batch, because a rank has no memory for whole gradients, and over the copies (HSDP) once per batch.
    """
    if isinstance(objective, DistributedDataParallel) and not last:
        return objective.no_sync()
    if isinstance(objective, FSDPModule):
        objective.set_requires_all_reduce(last)
    return nullcontext()


@contextmanager
def evaluating(objective: nn.Module) -> Iterator[None]:
    """Return a context for forward passes that no backward passes follow."""
    with torch.no_grad():
        yield
    if isinstance(objective, FSDPModule):
        objective.reshard()  # in training, the backward pass does it
