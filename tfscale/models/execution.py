"""Execution of a training step on one device, as far as memory depends on it."""

from dataclasses import dataclass
from typing import Literal

Recompute = Literal["none", "pattention", "blocks"]
"""Activation checkpointing: what the backward pass computes again. `pattention`: the scores of every Pattention, tile
by tile. `blocks`: everything inside a block but its input."""


@dataclass(frozen=True)
class Execution:
    """One device's share of a training step."""

    sequences: int
    """Sequences of a micro-batch."""
    activation_bytes: int = 4
    """Bytes per value in the forward pass: 4 in float32, 2 under bf16 autocast."""
    recompute: Recompute = "none"
    in_backward: bool = False
    """True if each weight is updated, and its gradient freed, as soon as the gradient is computed."""
    shards: int = 1
    """Number of devices that weights, gradients and optimizer state are sharded over (FSDP)."""
    device: str = "cpu"
    """A torch device type; tiles are larger on a GPU."""
    state_bytes: float = 8.0
    """Bytes that the optimizer keeps per weight: 8 for AdamW's two moments."""
