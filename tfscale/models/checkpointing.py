"""Functions for activation checkpointing."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def checkpointed(function: Callable[..., Tensor], *inputs: object) -> Tensor:
    """Return `function(*inputs)`, with activation checkpointing: the backward pass calls the function again instead of
    storing its activations."""
    out: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out


def perhaps_checkpointed(recompute: bool, function: Callable[..., Tensor], *inputs: object) -> Tensor:
    """Return `function(*inputs)`, with activation checkpointing if `recompute` is true and gradients are enabled."""
    return checkpointed(function, *inputs) if recompute and torch.is_grad_enabled() else function(*inputs)
