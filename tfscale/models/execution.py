"""Settings of a training step on one device that determine its memory."""

from dataclasses import dataclass
from typing import Literal

Recompute = Literal["none", "pattention", "blocks"]
"""Mode of activation checkpointing: what the backward pass recomputes. `pattention`: the scores of every Pattention,
tile by tile. `blocks`: everything inside a block except its input."""


@dataclass(frozen=True)
class Execution:
    """Share of a training step that one device executes."""

    sequences: int
    """Number of sequences in a micro-batch."""
    activation_bytes: int = 4
    """Number of bytes per value in the forward pass: 4 in float32, 2 under bf16 autocast."""
    recompute: Recompute = "none"
    in_backward: bool = False
    """True if each weight is updated and its gradient freed as soon as the gradient is computed."""
    shards: int = 1
    """Number of devices that weights, gradients and optimizer state are sharded over (FSDP)."""
    device: str = "cpu"
    """Torch device type; tiles are larger on a GPU."""
    state_bytes: float = 8.0
    """Number of bytes that the optimizer keeps per weight: 8 for AdamW's two moments."""
