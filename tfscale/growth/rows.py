"""Rows of parameter tokens: pure functions from the rows of a weight, or of a slot of the optimizer, to more."""

from functools import partial
from typing import Literal, assert_never

import torch
from torch import Tensor

from tfscale.models.config import ModelConfig
from tfscale.models.init import init_tensor, stream


def share_of_copies(name: str, degree: int, copies: int) -> float:
    """Return the factor of a token's rows when `copies` of it take its place.

    A copy's value is 1/q of the old one, so the gradient of its key is 1/q too and that of its value is the old one.

    Args:
        degree: 0 for a weight, else the power of the gradient that the slot averages.
    """
    divided = name.endswith(".values") if degree == 0 else name.endswith(".keys")
    return 1 / copies ** max(1, degree) if divided else 1.0


def noisy(rows: Tensor, name: str, noise: float, seed: int) -> Tensor:
    """Return the rows with noise of `noise` times their own standard deviation; it is drawn from (seed, name)."""
    if noise == 0:
        return rows
    drawn = torch.randn(rows.shape, generator=stream(seed, name))
    return rows + (drawn * (noise * rows.std().item())).to(rows.dtype)


def new_rows(
    how: Literal["zero", "random", "matched"], name: str, old: Tensor, n: int, parent: ModelConfig, seed: int
) -> Tensor:
    """Return `n` new rows of a weight.

    Args:
        how: `random`: as at initialisation. `matched`: random, of the standard deviation of the old rows.
        old: [tokens, d] of the parent.
    """
    shape = (n, old.shape[1])
    random = partial(init_tensor, name, shape, parent, seed, f":from{len(old)}")
    if how == "zero":
        rows = torch.zeros(shape)
    elif how == "random":
        rows = random()
    elif how == "matched":
        rows = random() * (old.std().item() / parent.init_std(name))
    else:
        assert_never(how)
    return rows.to(old.dtype)
