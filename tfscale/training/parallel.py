"""Data-parallel training, which replicates (DDP) or shards (FSDP2) a model over the devices of all ranks."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tfscale.checkpoint import Part, Ranks
from tfscale.models.init import init_tensor
from tfscale.models.language_model import LanguageModel
from tfscale.optimizers.sharded import first_row, is_share
from tfscale.stage.layout import Layout
from tfscale.training.device import Device
from tfscale.training.world import World

# Importing FSDP takes a second, and a single process does not need it.
if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


class Objective(nn.Module):
    """Module whose forward pass computes the loss of a batch, so that DDP and FSDP can wrap the whole computation."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor, each: bool = False) -> Tensor:
        """Return the loss in nats, summed over all tokens [batch, time], as a scalar. With `each`, return the summed
        loss of each sequence [batch], without gradients."""
        if each:
            return self.model.sequence_losses(inputs, targets)
        return self.model.loss(inputs, targets, reduction="sum")


def parallelize(model: LanguageModel, world: World, device: Device, layout: Layout) -> nn.Module:
    """Apply activation checkpointing, Triton kernels, compilation and data parallelism to a model, as `device` and
    `layout` require, in this order. Return the `Objective` of the model. DDP wraps the objective if the model is
    replicated on several ranks. Backward passes compute the mean of the gradients over the ranks. A model to be sharded
    may be on the meta device; the caller then initialises its weights (`initialise_shards`)."""
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
    """Return a context manager for the passes of one micro-batch, which controls the reduction of gradients over the
    ranks. Gradients of replicated weights (DDP) are reduced only if the micro-batch is the `last` of a batch. Sharded
    gradients are reduced within a replica of the model after every micro-batch, because a rank has no memory for full
    gradients, and over the replicas (HSDP) only once per batch."""
    if isinstance(objective, DistributedDataParallel) and not last:
        return objective.no_sync()
    if is_sharded(objective):
        objective.set_requires_all_reduce(last)
    return nullcontext()


@contextmanager
def evaluating(objective: nn.Module) -> Iterator[None]:
    """Return a context manager for the forward passes of an evaluation. When the context ends, the gathered weights of
    a sharded model are freed."""
    yield
    if is_sharded(objective):
        objective.reshard()  # during training, the backward pass does this


def is_sharded(module: nn.Module) -> "TypeGuard[FSDPModule]":
    """Return whether FSDP shards a module. The check does not import FSDP, because FSDP has already been imported if
    any module is sharded."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)


def shard(module: nn.Module, blocks: nn.ModuleList, world: World, device: Device, hybrid: bool) -> None:
    """Shard the weights of a module over all devices or, with `hybrid`, over the devices of each host. The weights of
    each block are gathered when the block runs, in bf16 under bf16 autocast on CUDA and otherwise in float32. The tied
    embedding and the final norm are gathered once per micro-batch, in float32."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    if hybrid:
        shape, names = (world.size // world.local_size, world.local_size), ("replicate", "shard")
        mesh = init_device_mesh(device.kind, shape, mesh_dim_names=names)
    else:
        mesh = init_device_mesh(device.kind, (world.size,), mesh_dim_names=("shard",))
    policy = MixedPrecisionPolicy()
    if device.bf16 and device.kind == "cuda":  # layer norm on a CPU does not accept weights of another precision
        policy = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh)


@torch.no_grad()
def initialise_shards(model: LanguageModel, seed: int) -> None:
    """Initialise this rank's shards of the weights of a sharded model. Each rank computes the full values of one weight
    at a time."""
    from torch.distributed.tensor import distribute_tensor

    for name, parameter in model.named_parameters():
        assert is_share(parameter)
        first = init_tensor(name, tuple(parameter.shape), model.config, seed)
        # No data is sent: every rank has built the same tensor.
        mine = distribute_tensor(first, parameter.device_mesh, parameter.placements, src_data_rank=None)
        parameter.to_local().copy_(mine.to_local())


def part_of(tensor: Tensor, ranks: Ranks) -> Tensor | Part | None:
    """Return the values of a tensor that this rank writes to a checkpoint: the whole tensor, this rank's shard, or None
    if this rank writes nothing."""
    if not is_share(tensor):
        return tensor if ranks.leads else None
    for dimension, placement in enumerate(tensor.placements):
        if placement.is_replicate() and tensor.device_mesh.get_local_rank(dimension):
            return None  # another replica of the model writes the shard
    mine = tensor.to_local()
    return Part(mine, (first_row(tensor), *(0 for _ in mine.shape[1:]))) if mine.numel() else None
