"""Rotary position embeddings of queries and keys."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tfscale.models.config import ModelConfig, rotary_dims
from tfscale.models.precision import wide

ROTARY_BASE = 10_000.0


class Rotation(NamedTuple):
    """Cosines and sines of the angles by which the first r dimensions of each head are rotated at each position."""

    cos: Tensor
    """Cosines of the rotation angles, [time, 1, r] or [batch, time, 1, r]."""
    sin: Tensor
    """Sines with the shape of `cos`, negated in the first half of the dimensions."""


def rotary_table(config: ModelConfig, positions: Tensor, dtype: torch.dtype) -> Rotation | None:
    """Return the rotation for `positions` [time] or [batch, time], or None if the model has no rotary dimensions.
    Dimensions j and j + r/2 of the r rotary dimensions are rotated with the frequency 10000^(-2j/r), for 0 <= j < r/2.
    The fraction of rotary dimensions is `rotary_pct` in the official GPU configs."""
    r = rotary_dims(config)
    if r == 0:
        return None
    frequency = ROTARY_BASE ** (-torch.arange(0, r, 2, device=positions.device, dtype=wide(dtype)) / r)
    angles = positions.to(wide(dtype))[..., None, None] * frequency
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    return Rotation(torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1))


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Return x [..., time, n_head, head_dim] with the first r dimensions of each head rotated."""
    cos, sin = rotation
    r = cos.shape[-1]
    turning, still = x.split([r, x.shape[-1] - r], dim=-1)
    return torch.cat([torch.addcmul(turning * cos, _swapped(turning), sin), still], dim=-1)


def rotated_heads(qkv: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rotated queries, the rotated keys and the values, each [batch, time, n_head, head_dim], of `qkv`
    [batch, time, 3, n_head, head_dim]. `qkv` must not be a leaf tensor and must not be used again, because its rotary
    dimensions are overwritten to avoid copies of the other dimensions (except under torch.compile)."""
    if rotation is None or torch.compiler.is_compiling():
        q, k, v = qkv.unbind(2)
        # A view of the values would keep the whole tensor `qkv` for the backward pass.
        return (q, k, v) if rotation is None else (rotate(q, rotation), rotate(k, rotation), v.contiguous())
    heads: tuple[Tensor, Tensor, Tensor] = _RotatedHeads.apply(qkv, *rotation)  # type: ignore[no-untyped-call]
    return heads


class _RotatedHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(cos, sin)
        turning = _rotary_part(qkv, cos)
        torch.addcmul(turning * cos.unsqueeze(-3), _swapped(turning), sin.unsqueeze(-3), out=turning)
        return qkv.unbind(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        d_qkv = torch.stack(gradients, dim=2)
        turning = _rotary_part(d_qkv, cos)
        torch.add(turning * cos.unsqueeze(-3), _swapped(turning * sin.unsqueeze(-3)), out=turning)
        return d_qkv, None, None


def _rotary_part(qkv: Tensor, cos: Tensor) -> Tensor:
    """Return a view [batch, time, 2, n_head, r] of the rotary dimensions of queries and keys."""
    return qkv[:, :, :2, :, : cos.shape[-1]]


def _swapped(turning: Tensor) -> Tensor:
    a, b = turning.chunk(2, dim=-1)
    return torch.cat([b, a], dim=-1)
