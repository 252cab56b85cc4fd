"""Growth of a Transformer in width: pure functions from a weight, or a slot of the optimizer, to the wider one.

Dimension j of the wider model is a copy of dimension j mod d of the old one: in the residual stream, in the hidden
layer, and, as heads keep their size, for heads as a whole. So each layer gets its input several times, and what reads
it divides its weights by the number of copies. The tied embedding is read twice, as first states and as logits; the
second time it is the final norm that divides.
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
    """A dimension of a tensor that grows."""

    width: Literal["d_model", "d_ff"]
    reads: bool
    """If true, its entries are multiplied with copies and divided among them; if false, they produce copies."""
    parts: int = 1
    """Number of projections that are concatenated along it."""


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
"""Growing dimensions of each weight, by the end of its name."""


def widen_tensor(name: str, degree: int, old: Tensor, parent: TransformerConfig, child: TransformerConfig) -> Tensor:
    """Return the wider tensor.

    Args:
        name: name of the weight in the model.
        degree: 0 for the weight; for a slot of the optimizer the power of the gradient that it averages.
        old: the parent's tensor.
    """
    wide = old
    for dim, axis in enumerate(_axes_of(name)):
        if axis is not None:
            wide = _widen(wide, dim, axis, degree, getattr(parent, axis.width), getattr(child, axis.width))
    return wide


def add_noise(name: str, wide: Tensor, old: Tensor, noise: float, seed: int, cancels: bool) -> Tensor:
    """Return a widened weight with noise of `noise` times its own standard deviation, drawn from (seed, name, shape).

    Args:
        cancels: the noise is on all weights and sums to zero over the copies of an input; else it is on copies alone.
    """
    if wide.shape == old.shape or wide.dim() == 1:
        return wide
    drawn = torch.randn(wide.shape, generator=stream(seed, f"{name}:from{tuple(old.shape)}")) * wide.std()
    apart = _cancelling if cancels else _on_copies
    return wide + noise * apart(drawn, _axes_of(name), old).to(wide.dtype)


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
    # What a dimension's copies do together is what it did, so each one's gradient is that of the original over their
    # number; a weight that reads a copy gets the gradient that it had.
    if axis.reads == (degree == 0):
        return 1 / copies.double() ** max(1, degree)
    return torch.ones(len(copies), dtype=torch.float64)


def _on_copies(noise: Tensor, axes: tuple[_Axis | None, ...], old: Tensor) -> Tensor:
    """Return the noise for the rows that produce copies, and zero for the originals."""
    dim, axis = next((dim, axis) for dim, axis in enumerate(axes) if axis is not None and not axis.reads)
    before, after = old.shape[dim] // axis.parts, noise.shape[dim] // axis.parts
    is_copy = (torch.arange(after) >= before).repeat(axis.parts)
    return noise * is_copy.view([-1 if each == dim else 1 for each in range(noise.dim())])


def _cancelling(noise: Tensor, axes: tuple[_Axis | None, ...], old: Tensor) -> Tensor:
    """Return noise that sums to zero over the copies of each input, with unchanged standard deviation."""
    dim = next((dim for dim, axis in enumerate(axes) if axis is not None and axis.reads), None)
    if dim is None:
        return torch.zeros_like(noise)
    copies = noise.unflatten(dim, (-1, old.shape[dim]))
    number = copies.shape[dim]
    apart: Tensor = (copies - copies.mean(dim, keepdim=True)) * math.sqrt(number / (number - 1))
    return apart.flatten(dim, dim + 1)
