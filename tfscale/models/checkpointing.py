"""Activation checkpointing."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def checkpointed(function: Callable[..., Tensor], *inputs: object, when: bool = True) -> Tensor:
    """Return `function(*inputs)`. If `when` is true and gradients are enabled, the activations of the function are not
    stored, and the backward pass calls the function again."""
    if not (when and torch.is_grad_enabled()):
        return function(*inputs)
    out: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out
