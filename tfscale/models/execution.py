"""Execution settings of a training step. The settings determine the memory that the step needs on one device."""

from dataclasses import dataclass
from typing import Literal

Recompute = Literal["none", "pattention", "blocks"]
"""Mode of activation checkpointing. `none`: the backward pass recomputes nothing. `pattention`: the backward pass
recomputes the scores of every Pattention. `blocks`: the backward pass recomputes all activations inside a block."""


@dataclass(frozen=True)
class Execution:
    """Execution settings of a training step on one device."""

    sequences: int
    """Number of sequences in a micro-batch."""
    activation_bytes: int = 4
    """Number of bytes per value in the forward pass: 4 in float32, 2 under bf16 autocast."""
    recompute: Recompute = "none"
    in_backward: bool = False
    """True if each weight is updated, and its gradient freed, during the backward pass."""
    shards: int = 1
    """Number of devices that weights, gradients and optimizer state are sharded over (FSDP)."""
    device: str = "cpu"
    """Torch device type. Tiles are larger on a GPU than on a CPU."""
    state_bytes: float = 8.0
    """Number of bytes of optimizer state per weight, such as 8 for the two moments of AdamW."""
    update_bytes: int = 0
    """Number of bytes that an update of the weights allocates in addition to the optimizer state."""
    buckets: bool = False
    """True if gradients of several micro-batches are summed before they are copied into DDP's buckets. With a single
    micro-batch, each gradient is copied as soon as it is computed, and then freed."""
    compiled: bool = False
    """True if torch.compile compiles the blocks. The compiler then chooses the tensors that a block keeps for the
    backward pass."""
    kernels: bool = False
    """True if Pattention uses this package's Triton kernels for the norm and GELU."""
