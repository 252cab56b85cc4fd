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
    """The loss of a batch as a module's forward pass, which is what data parallelism wraps."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor, each: bool = False) -> Tensor:
        """Nats, summed over the tokens [batch, time]; `each`: over those of each sequence, [batch], no gradients."""
        if each:
            return self.model.sequence_losses(inputs, targets)
        return self.model.loss(inputs, targets, reduction="sum")


def parallelize(model: LanguageModel, world: World, device: Device, layout: Layout) -> nn.Module:
    """The objective of a model as it is trained. In order: what is recomputed, compiled blocks, data parallelism.

    Args:
        model: a model that is going to be sharded may be on the meta device, to be filled afterwards.

    Returns:
        An `Objective`, wrapped. Its backward passes give the mean of the ranks' gradients.
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
    """Return a context for one micro-batch; after the last one of a batch the ranks' gradients are reduced.

    Whole gradients (DDP) are reduced once per batch. Sharded ones are reduced within a copy of the model after every
    micro-batch, because a rank has no memory for whole gradients, and over the copies (HSDP) once per batch.
    """
    if isinstance(objective, DistributedDataParallel) and not last:
        return objective.no_sync()
    if isinstance(objective, FSDPModule):
        objective.set_requires_all_reduce(last)
    return nullcontext()


@contextmanager
def evaluating(objective: nn.Module) -> Iterator[None]:
    """Surrounds forward passes without backward passes."""
    with torch.no_grad():
        yield
    if isinstance(objective, FSDPModule):
        objective.reshard()  # the backward pass does it otherwise
