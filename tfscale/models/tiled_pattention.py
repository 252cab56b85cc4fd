"""Pattention with the paper's norm and activation (Eq. 16), computed in tiles of tokens with a custom backward pass.

With keys K, values V and s = tau / |x K^T|, the scaled scores are z = s x K^T and the output is GELU(z) V. In the
backward pass, with the gradient g of the output and dz = GELU'(z) (g V^T), the norm requires only one sum per row: the
gradient of x K^T is s (dz - z <dz, z> / tau^2). Therefore only z and s are stored, whereas autograd stores three values
per score. With recomputation, only s is stored, and z is recomputed, so that there are seven matrix products instead of
six. The scores of a tile are processed while they are in the CPU caches, and their memory is reused, because on a CPU
the allocation of new memory takes longer than the arithmetic.

`make bench` compares the time and memory of this implementation with those of autograd and of a GELU network of equal
size. Three alternatives were not faster: a single matrix product for all projections, which needs a copy of their
weights; computing s before the scores, from the Gram matrix K^T K; and torch's private operator for the gradient of the
norm.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from tfscale.models.parameter_tokens import Groups
from tfscale.models.precision import add_product, product_dtype, wide, without_autocast
from tfscale.models.tiles import score_rows

# No public function writes GELU's gradient into a buffer; with autograd, a step of a small model took 4 to 7% longer.
_gelu_backward = torch.ops.aten.gelu_backward.grad_input

NORM_EPS = 1e-9
"""Constant that prevents NaN in rows whose scores are all zero. It is added to norm / tau (squared for an L2 norm)
rather than to the norm, so that growth by copies, which changes norm and tau by the same factor, remains exact."""


Projections = Sequence[tuple[Tensor, Tensor]]
"""Keys [n, d_in] and values [n, d_out] of each projection. All projections have the same n and d_out."""


def tiled_pattention(x: Tensor, projections: Projections, groups: Groups, recompute: bool) -> Tensor:
    """Return GELU(norm(x K^T)) V [..., projections, d_out] for x [..., d_in] and the (K, V) of each projection. The
    result can be differentiated once.

    Matrix products are computed in the precision of `x`, or of autocast if autocast is enabled; norms and the gradients
    of keys and values are summed in at least float32. With `recompute`, the backward pass recomputes the scores.
    """
    keep = torch.is_grad_enabled() and not recompute
    weights = (weight for projection in projections for weight in projection)
    out: Tensor = _TiledPattention.apply(x.reshape(-1, x.shape[-1]), groups, keep, *weights)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], *out.shape[1:])


class _TiledPattention(torch.autograd.Function):
    """Pattention that stores the scores of all projections in one tensor [tokens, projections, n], so that element-wise
    operations process all projections at once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: Groups, keep: bool, *weights: Tensor) -> Tensor:
        dtype, tokens = product_dtype(x), len(x)
        ks, vs = ([weight.to(dtype) for weight in half] for half in (weights[::2], weights[1::2]))
        shape = len(ks), len(ks[0])
        rows = score_rows(tokens, math.prod(shape), x.device.type, remade=not keep)
        scores = x.new_empty(tokens if keep else rows, *shape, dtype=dtype)
        scale = x.new_empty(tokens, len(ks), len(groups), dtype=wide(dtype))
        out = x.new_empty(tokens, len(vs), vs[0].shape[1], dtype=dtype)
        with without_autocast(x):
            for start in range(0, tokens, rows):
                a, s_tile = _rows(x, start, rows).to(dtype), _rows(scale, start, rows)
                z = _rows(scores, start if keep else 0, len(a))
                for k, each in zip(ks, z.unbind(1), strict=True):
                    torch.mm(a, k.T, out=each)
                for part, group, s in zip(_parts(z, groups), groups, _columns(s_tile), strict=True):
                    norm = torch.linalg.vector_norm(part, dim=-1, keepdim=True, dtype=s.dtype)
                    torch.rsqrt(norm.square_().div_(group.tau**2).add_(NORM_EPS), out=s)
                    part *= s.to(dtype)
                for v, each, result in zip(vs, F.gelu(z).unbind(1), _rows(out, start, rows).unbind(1), strict=True):
                    torch.mm(each, v, out=result)
        ctx.save_for_backward(x, scale, scores if keep else None, *weights)
        ctx.groups, ctx.rows, ctx.dtype = groups, rows, dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, kept, *weights = ctx.saved_tensors
        groups, rows, dtype = ctx.groups, ctx.rows, ctx.dtype
        ks, vs = ([weight.to(dtype) for weight in half] for half in (weights[::2], weights[1::2]))
        d_x = torch.empty_like(x)
        gradients = [torch.empty_like(weight, dtype=wide(weight.dtype)) for weight in weights]
        d_ks, d_vs = gradients[::2], gradients[1::2]
        d_scaled = x.new_empty(rows, len(ks), len(ks[0]), dtype=dtype)
        scores = torch.empty_like(d_scaled) if kept is None else None
        with without_autocast(x):
            for start in range(0, len(x), rows):
                a, s_tile = _rows(x, start, rows).to(dtype), _rows(scale, start, rows)
                if scores is None:
                    z = _rows(kept, start, rows)
                else:
                    z = _rows(scores, 0, len(a))
                    for k, each in zip(ks, z.unbind(1), strict=True):
                        torch.mm(a, k.T, out=each)
                    for part, s in zip(_parts(z, groups), _columns(s_tile), strict=True):
                        part *= s.to(dtype)
                d_z, results = _rows(d_scaled, 0, len(a)), _rows(d_out, start, rows)
                _through_values(F.gelu(z), vs, results, d_vs, d_z, first=start == 0)
                _gelu_backward(d_z, z, grad_input=d_z)
                _through_norm(d_z, z, s_tile, groups)
                _through_keys(a, ks, d_z, d_ks, _rows(d_x, start, rows), first=start == 0)
        return d_x, None, None, *(d.to(weight.dtype) for d, weight in zip(gradients, weights, strict=True))


def _through_values(
    w: Tensor, vs: Sequence[Tensor], d_out: Tensor, d_vs: Sequence[Tensor], d_w: Tensor, first: bool
) -> None:
    """Write the gradient of the weights `w` to `d_w`, and add the gradients of the values `vs` to `d_vs`. If `first` is
    True, overwrite `d_vs` instead."""
    for v, d_v, each, d_each, d_result in zip(vs, d_vs, w.unbind(1), d_w.unbind(1), d_out.unbind(1), strict=True):
        add_product(d_v, each.T, d_result, first)
        torch.mm(d_result, v.T, out=d_each)


def _through_keys(
    x: Tensor, ks: Sequence[Tensor], d_scores: Tensor, d_ks: Sequence[Tensor], d_x: Tensor, first: bool
) -> None:
    """Write the gradient of `x` to `d_x`, and add the gradients of the keys `ks` to `d_ks`. If `first` is True,
    overwrite `d_ks` instead."""
    last_first = reversed(list(zip(ks, d_ks, d_scores.unbind(1), strict=True)))  # the order in which autograd adds them
    for number, (k, d_k, d_each) in enumerate(last_first):
        add_product(d_x, d_each, k, first=number == 0)
        add_product(d_k, d_each.T, x, first)


def _through_norm(d_z: Tensor, z: Tensor, scale: Tensor, groups: Groups) -> None:
    """Convert the gradient `d_z` of the scaled scores `z` in place to the gradient of the scores before scaling."""
    parts = (_parts(each, groups) for each in (d_z, z))
    for group, s, d_part, part in zip(groups, _columns(scale), *parts, strict=True):
        along = (d_part * part).sum(-1, keepdim=True, dtype=s.dtype).div_(-(group.tau**2))
        d_part.addcmul_(part, along.to(part.dtype)).mul_(s.to(part.dtype))


def _parts(scores: Tensor, groups: Groups) -> tuple[Tensor, ...]:
    if len(groups) == 1:
        return (scores,)
    parts: tuple[Tensor, ...] = scores.split([group.n for group in groups], dim=-1)
    return parts


def _columns(scale: Tensor) -> tuple[Tensor, ...]:
    return (scale,) if scale.shape[-1] == 1 else scale.split(1, dim=-1)


def _rows(tensor: Tensor, start: int, count: int) -> Tensor:
    """Return at most `count` rows of a tensor, starting at `start`. If these are all rows, the tensor itself is
    returned, because creating views took a tenth of the time of a step in a small model with one tile."""
    return tensor if start == 0 and count == len(tensor) else tensor[start : start + count]
