"""Whole tensors and local rows of tensors that are sharded over ranks (DTensor)."""

from torch import Tensor
from torch.distributed.tensor import DTensor


def whole(tensor: Tensor) -> Tensor:
    """Return the whole tensor that `tensor` is a share of. This is a collective call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that is on this rank."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def first_row(tensor: Tensor) -> int:
    """Return the index of this rank's first row in the whole tensor."""
    if not isinstance(tensor, DTensor):
        return 0
    first = 0
    for dimension, placement in enumerate(tensor.placements):
        if not placement.is_replicate():
            assert placement.is_shard(0)
            place, size = tensor.device_mesh.get_local_rank(dimension), tensor.device_mesh.size(dimension)
            first = place * -(-tensor.shape[0] // size)
    return first
