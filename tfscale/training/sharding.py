"""Models and tensors that are sharded over the ranks (FSDP2)."""

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from tfscale.checkpoint import Part
from tfscale.models.init import init_tensor
from tfscale.models.language_model import LanguageModel
from tfscale.optimizers.sharded import first_row
from tfscale.training.device import Device
from tfscale.training.world import Ranks, World


def shard(module: nn.Module, blocks: nn.ModuleList, world: World, device: Device, hybrid: bool) -> None:
    """Shard a module's weights. The weights of each block are gathered when the block runs, in bf16 if autocast would
    cast them. The remaining weights, the tied embedding and the final norm, are gathered once per step, in float32 like
    the computation between blocks.

    Args:
        hybrid: True to shard within each host, so that each host has a copy of the model; False to shard over all
            ranks.
    """
    if hybrid:
        shape, names = (world.size // world.local_size, world.local_size), ("replicate", "shard")
        mesh = init_device_mesh(device.kind, shape, mesh_dim_names=names)
    else:
        mesh = init_device_mesh(device.kind, (world.size,), mesh_dim_names=("shard",))
    policy = MixedPrecisionPolicy()
    if device.bf16 and device.kind == "cuda":  # the CPU's layer norm does not accept weights of another precision
        policy = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh)


@torch.no_grad()
def initialise_shares(model: LanguageModel, seed: int) -> None:
    """Initialise every weight of a sharded model; each rank builds one whole tensor at a time."""
    from torch.distributed.tensor import distribute_tensor

    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor)
        first = init_tensor(name, tuple(parameter.shape), model.config, seed)
        # No data is sent: every rank has built the same tensor.
        mine = distribute_tensor(first, parameter.device_mesh, parameter.placements, src_data_rank=None)
        parameter.to_local().copy_(mine.to_local())


def part_of(tensor: Tensor, ranks: Ranks) -> Tensor | Part | None:
    """Return the part of a tensor that this rank writes into a checkpoint, or None if it writes nothing."""
    if not isinstance(tensor, DTensor):
        return tensor if ranks.leads else None
    for dimension, placement in enumerate(tensor.placements):
        if placement.is_replicate() and tensor.device_mesh.get_local_rank(dimension):
            return None  # another copy of the model writes it
    mine = tensor.to_local()
    return Part(mine, (first_row(tensor), *(0 for _ in mine.shape[1:]))) if mine.numel() else None
