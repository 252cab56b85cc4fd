"""Access to the shards of tensors that may be sharded over ranks (DTensor)."""

import sys
from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor

if TYPE_CHECKING:  # importing DTensor takes a second, and a single process does not need it
    from torch.distributed.tensor import DTensor


def is_share(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Return True if a tensor is sharded. This function does not import DTensor, because no tensor is sharded before
    another module has imported DTensor."""
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(tensor, tensors.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """Return the full tensor. If the given tensor is sharded, all ranks must call this function together to gather
    it."""
    return tensor.full_tensor() if is_share(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a tensor, or the tensor itself if it is not sharded."""
    return tensor.to_local() if is_share(tensor) else tensor


def first_row(tensor: Tensor) -> int:
    """Return the index that the first row of this rank's shard has in the full tensor, or 0 if the tensor is not
    sharded."""
    if not is_share(tensor):
        return 0
    first = 0
    for dimension, placement in enumerate(tensor.placements):
        if not placement.is_replicate():
            assert placement.is_shard(0)
            rank, size = tensor.device_mesh.get_local_rank(dimension), tensor.device_mesh.size(dimension)
            first = rank * -(-tensor.shape[0] // size)
    return first
