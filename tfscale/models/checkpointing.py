"""Activation checkpointing of a function."""

from collections.abc import Callable
from typing import ParamSpec

from torch import Tensor
from torch.utils.checkpoint import checkpoint

P = ParamSpec("P")


def checkpointed(function: Callable[P, Tensor], *inputs: P.args, **named: P.kwargs) -> Tensor:
    """Return the output of a function. The backward pass calls the function again instead of storing its
    activations."""
    out: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False, **named)
    return out
