"""Pure functions that widen the weights and optimizer slots of a Transformer.

In the residual stream and in the hidden layers of the feed-forward networks, dimension j of the wider model is a copy
of dimension j mod d of the old model, where d is the old width. Heads keep their size and are copied as a whole. Each
layer therefore reads several copies of its input, and the weights of the layer are divided by the number of copies. The
tied embedding is used for both the input and the logits and cannot be divided, so the weights of the final norm are
divided instead.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tfscale.models.init import stream
from tfscale.models.transformer import TransformerConfig


@dataclass(frozen=True)
class _Axis:
    """Dimension of a tensor that grows with the width of the model."""

    width: Literal["d_model", "d_ff"]
    reads: bool
    """True if the entries along this dimension are multiplied by copies of an input, and are therefore divided by the
    number of copies. False if the entries produce copies of an output."""
    parts: int = 1
    """Number of projections that are concatenated along this dimension."""


_AXES: dict[str, tuple[_Axis | None, ...]] = {
    "embedding": (None, _Axis("d_model", reads=False)),
    "attention_norm.weight": (_Axis("d_model", reads=False),),
    "qkv.weight": (_Axis("d_model", reads=False, parts=3), _Axis("d_model", reads=True)),
    "output.weight": (_Axis("d_model", reads=False), _Axis("d_model", reads=True)),
    "ffn_norm.weight": (_Axis("d_model", reads=False),),
    "up.weight": (_Axis("d_ff", reads=False), _Axis("d_model", reads=True)),
    "down.weight": (_Axis("d_model", reads=False), _Axis("d_ff", reads=True)),
    "final_norm.weight": (_Axis("d_model", reads=True),),
    "final_norm.bias": (_Axis("d_model", reads=True),),
}
"""Dimensions of each weight. The keys are the ends of the names of weights. None stands for a dimension that does not
grow."""


def widen_tensor(name: str, degree: int, old: Tensor, parent: TransformerConfig, child: TransformerConfig) -> Tensor:
    """Return a weight or an optimizer slot of the wider model. The arguments are described in `Growth.grow_tensor`."""
    wide = old
    for dim, axis in enumerate(_axes_of(name)):
        if axis is not None:
            wide = _widen(wide, dim, axis, degree, getattr(parent, axis.width), getattr(child, axis.width))
    return wide


def add_noise(name: str, wide: Tensor, old: Tensor, noise: float, seed: int, cancels: bool) -> Tensor:
    """Return a widened weight plus random noise, whose standard deviation is `noise` times the standard deviation of
    the weight. The random numbers depend only on the seed, and on the name and the old and new shapes of the weight.
    One-dimensional weights and weights that were not widened get no noise.

    Args:
        cancels: True to add noise to all entries such that its sum over the copies of each input is zero; False to add
            noise only to the entries that compute copies.
    """
    if wide.shape == old.shape or wide.dim() == 1:
        return wide
    drawn = torch.randn(wide.shape, generator=stream(seed, f"{name}:from{tuple(old.shape)}")) * wide.std()
    restricted = _cancelling if cancels else _on_copies
    return wide + noise * restricted(drawn, _axes_of(name), old).to(wide.dtype)


def _axes_of(name: str) -> tuple[_Axis | None, ...]:
    return next(axes for end, axes in _AXES.items() if name.endswith(end))


def _widen(tensor: Tensor, dim: int, axis: _Axis, degree: int, before: int, after: int) -> Tensor:
    source = torch.arange(after) % before
    copies = torch.bincount(source, minlength=before)[source]
    rows = torch.cat([part * before + source for part in range(axis.parts)])
    shape = [-1 if each == dim else 1 for each in range(tensor.dim())]
    share = _share(axis, degree, copies.repeat(axis.parts))
    return tensor.index_select(dim, rows) * share.to(tensor.dtype).view(shape)


def _share(axis: _Axis, degree: int, copies: Tensor) -> Tensor:
    # The copies of a dimension share the effect of the original, so the gradient of each copy is the gradient of the
    # original divided by the number of copies. The gradient of a weight that reads a copy is unchanged.
    if axis.reads == (degree == 0):
        return 1 / copies.double() ** max(1, degree)
    return torch.ones(len(copies), dtype=torch.float64)


def _on_copies(noise: Tensor, axes: tuple[_Axis | None, ...], old: Tensor) -> Tensor:
    """Return the noise, set to zero in the entries that compute original outputs, so that only the entries that compute
    copies get noise."""
    dim, axis = next((dim, axis) for dim, axis in enumerate(axes) if axis is not None and not axis.reads)
    before, after = old.shape[dim] // axis.parts, noise.shape[dim] // axis.parts
    is_copy = (torch.arange(after) >= before).repeat(axis.parts)
    return noise * is_copy.view([-1 if each == dim else 1 for each in range(noise.dim())])


def _cancelling(noise: Tensor, axes: tuple[_Axis | None, ...], old: Tensor) -> Tensor:
    """Return the noise, changed so that it sums to zero over the copies of each input and keeps its standard deviation.
    Return zeros if the weight has no input dimension that grows."""
    dim = next((dim for dim, axis in enumerate(axes) if axis is not None and axis.reads), None)
    if dim is None:
        return torch.zeros_like(noise)
    copies = noise.unflatten(dim, (-1, old.shape[dim]))
    number = copies.shape[dim]
    cancelling: Tensor = (copies - copies.mean(dim, keepdim=True)) * math.sqrt(number / (number - 1))
    return cancelling.flatten(dim, dim + 1)
