"""Pure functions that compute the rows that a growth adds to a weight, and the scale of copied rows."""

from functools import partial
from typing import Literal, assert_never

import torch
from torch import Tensor

from tfscale.models.config import ModelConfig
from tfscale.models.init import init_tensor, stream


def share_of_copies(name: str, degree: int, copies: int) -> float:
    """Return the factor that scales the row of a parameter token if `copies` copies of the token replace it.

    The value of each of q copies is 1/q of the old value. The gradient of each key is therefore 1/q of the old
    gradient, and the gradient of each value is unchanged. `degree` is defined in `Growth.grow_tensor`.
    """
    divided = name.endswith(".values") if degree == 0 else name.endswith(".keys")
    return 1 / copies ** max(1, degree) if divided else 1.0


def noisy(rows: Tensor, name: str, noise: float, seed: int) -> Tensor:
    """Return the rows plus random noise, whose standard deviation is `noise` times the standard deviation of the rows.
    The noise is a function of (seed, name) and the shape of the rows."""
    if noise == 0:
        return rows
    drawn = torch.randn(rows.shape, generator=stream(seed, name))
    return rows + (drawn * (noise * rows.std().item())).to(rows.dtype)


def new_rows(
    how: Literal["zero", "random", "matched"], name: str, old: Tensor, n: int, child: ModelConfig, seed: int
) -> Tensor:
    """Return `n` new rows [n, d] of a weight.

    Args:
        how: initial values of the rows. `zero`: zeros. `random`: as at initialisation. `matched`: random, with the
            standard deviation of the old rows.
        old: rows of the parent [tokens, d].
    """
    shape = (n, old.shape[1])
    random = partial(init_tensor, name, shape, child, seed, f":from{len(old)}")
    if how == "zero":
        rows = torch.zeros(shape)
    elif how == "random":
        rows = random()
    elif how == "matched":
        rows = random() * (old.std().item() / child.initial_std(name))
    else:
        assert_never(how)
    return rows.to(old.dtype)
