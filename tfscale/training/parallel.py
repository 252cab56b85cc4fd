"""How a model is laid out on the devices of its ranks."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from tfscale.checkpoint import Part
from tfscale.models.init import init_tensor, init_weights
from tfscale.models.language_model import LanguageModel
from tfscale.training.device import Device
from tfscale.training.fitting import Fit
from tfscale.training.world import Ranks, World


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


def parallelize(model: LanguageModel, world: World, device: Device, fit: Fit) -> nn.Module:
    """The objective of a model as it is trained. In order: what is recomputed, compiled blocks, data parallelism.

    Args:
        model: sharded ones may stand on the meta device, to be filled afterwards.

    Returns:
        An `Objective`, wrapped. Its backward passes give the mean of the ranks' gradients.
    """
    model.recompute = fit.recompute
    if device.compiled:
        model.compile_parts()
    objective = Objective(model)
    if fit.sharding != "none":
        return _sharded(objective, world, device, fit)
    if world.size > 1:
        return DistributedDataParallel(objective, gradient_as_bucket_view=True)
    return objective


def _sharded(objective: Objective, world: World, device: Device, fit: Fit) -> nn.Module:
    """FSDP2: each block's weights are gathered in its turn, in bf16 where autocast would make them so. What is
    left, the tied embedding and the final norm, is gathered once a step, in float32 like what runs between blocks."""
    if fit.sharding == "hybrid":
        shape, names = (world.size // world.local_size, world.local_size), ("replicate", "shard")
        mesh = init_device_mesh(device.kind, shape, mesh_dim_names=names)
    else:
        mesh = init_device_mesh(device.kind, (world.size,), mesh_dim_names=("shard",))
    policy = MixedPrecisionPolicy()
    if device.bf16 and device.kind == "cuda":  # the CPU's layer norm takes no weights of another precision
        policy = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in objective.model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(objective, mesh=mesh)
    return objective


def gathering(objective: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Surrounds a micro-batch; after the last one of a batch the ranks' gradients are made one.

    Whole ones (DDP) travel once a batch. Shards are summed within a copy of the model after every micro-batch, since a
    rank has no room for whole gradients, and over the copies (HSDP) once a batch.
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


@torch.no_grad()
def initialise(model: LanguageModel, seed: int) -> None:
    """Gives every weight its first value; a rank of a sharded model makes one whole tensor at a time."""
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        init_weights(model, seed)
        return
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor)
        whole = init_tensor(name, tuple(parameter.shape), model.config, seed)
        # No data travels: every rank has made the same tensor.
        mine = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
        parameter.to_local().copy_(mine.to_local())


def part_of(tensor: Tensor, ranks: Ranks) -> Tensor | Part | None:
    """What of a tensor this rank writes into a checkpoint; None: nothing."""
    if not isinstance(tensor, DTensor):
        return tensor if ranks.leads else None
    for dimension, placement in enumerate(tensor.placements):
        if placement == Replicate() and tensor.device_mesh.get_local_rank(dimension):
            return None  # another copy of the model writes it
    local = tensor.to_local()
    return Part(local, (first_row(tensor), *(0 for _ in local.shape[1:]))) if local.numel() else None


def first_row(tensor: Tensor) -> int:
    """Where this rank's rows of a tensor begin in the whole of it."""
    if not isinstance(tensor, DTensor):
        return 0
    first = 0
    for dimension, placement in enumerate(tensor.placements):
        if placement != Replicate():
            assert placement == Shard(0)
            place, size = tensor.device_mesh.get_local_rank(dimension), tensor.device_mesh.size(dimension)
            first = place * -(-tensor.shape[0] // size)
    return first
