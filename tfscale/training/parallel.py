"""Data-parallel training, which distributes a model over the devices of all ranks."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tfscale.models.language_model import LanguageModel
from tfscale.stage.layout import Layout
from tfscale.training.device import Device
from tfscale.training.sharding import is_sharded, shard
from tfscale.training.world import World


class Objective(nn.Module):
    """Module whose forward pass computes the loss of a batch, so that DDP and FSDP can wrap the whole computation."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor, each: bool = False) -> Tensor:
        """Return the loss in nats, summed over all tokens [batch, time]. With `each`, return the loss [batch] of each
        sequence, without gradients."""
        if each:
            return self.model.sequence_losses(inputs, targets)
        return self.model.loss(inputs, targets, reduction="sum")


def parallelize(model: LanguageModel, world: World, device: Device, layout: Layout) -> nn.Module:
    """Return the training objective of a model, after applying activation checkpointing, compilation of the blocks and
    data parallelism in this order.

    Args:
        model: model to train. A model that is going to be sharded may be on the meta device; its weights are then
            initialised after sharding.

    Returns:
        An `Objective`, which DDP wraps if the model is replicated on several ranks. Its backward passes compute the
        mean of the gradients over the ranks.
    """
    model.recompute = layout.recompute
    if device.kernels:
        model.use_kernels()
    if device.compiled:
        model.compile_parts()
    objective = Objective(model)
    if layout.sharding != "none":
        shard(objective, model.blocks, world, device, hybrid=layout.sharding == "hybrid")
    elif world.size > 1:
        if device.compiled:
            # DDP would split the graph of each block to overlap communication with computation, but this already
            # happens, because blocks are compiled separately.
            torch._dynamo.config.optimize_ddp = False
        return DistributedDataParallel(objective, gradient_as_bucket_view=True)
    return objective


def reducing_gradients(objective: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Return a context manager for one micro-batch, in which gradients are reduced over the ranks if `last` is True.

    Gradients that are not sharded (DDP) are reduced once per batch. Sharded gradients are reduced within a replica of
    the model after every micro-batch, because a rank has no memory for full gradients, and over the replicas (HSDP)
    once per batch.
    """
    if isinstance(objective, DistributedDataParallel) and not last:
        return objective.no_sync()
    if is_sharded(objective):
        objective.set_requires_all_reduce(last)
    return nullcontext()


@contextmanager
def evaluating(objective: nn.Module) -> Iterator[None]:
    """Return a context manager for the forward passes of an evaluation, which computes no gradients."""
    with torch.no_grad():
        yield
    if is_sharded(objective):
        objective.reshard()  # during training, the backward pass does this
