"""Pattention with the paper's norm and activation (Eq. 16), in tiles of tokens and with a backward pass of its own.

With K the keys, V the values and s = tau / |x K^T|, the scaled scores are z = s x K^T and the output is GELU(z) V.
Going back, with g the output's gradient and dz = GELU'(z) (g V^T), the norm folds into one sum a row: the gradient of
x K^T is s (dz - z <dz, z> / tau^2). So nothing but z and s has to be kept, where autograd keeps three values a score;
or s alone, and z is made again, which is one matrix product more to six and leaves nothing of size n. A tile's scores
are used while the caches hold them, and their buffers are used again: on a CPU, memory that is new costs more than the
arithmetic on it.

Measured on a CPU in float32, forward and backward (`tfscale bench pattention`): at d = 768 and n from 576 to 34,480,
1.0 to 1.1 times the time of a GELU network of equal size, where autograd takes 1.1 to 1.25 and the official order of
operations 1.3 to 1.5; at d = 64 and n from 24 to 1,440, half of autograd's. Making the scores again takes 1.1 to 1.2
times as long as keeping them, and at n = 34,480 and 1,024 tokens an eighth of autograd's memory. Knowing s before the
first score, from the Gram matrix K^T K, took 1.2 to 1.4 times as long as this at 1,024 to 12,288 tokens: its products
with d x d matrices cost more than the passes over the scores that they save.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tfscale.models.config import Groups
from tfscale.models.precision import add_product, product, product_dtype, wide, without_autocast
from tfscale.models.tiles import score_rows

_gelu, _gelu_backward = torch.ops.aten.gelu.out, torch.ops.aten.gelu_backward.grad_input

NORM_EPS = 1e-9
"""Keeps an all-zero row of scores at zero instead of NaN. It is added to norm / tau, the mean size of a score, and not
to the norm: so it grows along when tokens are copied and tau with them, and growth by copies stays exact."""


def tiled_pattention(x: Tensor, keys: Tensor, values: Tensor, groups: Groups, recompute: bool) -> Tensor:
    """GELU(norm(x K^T)) V.

    Products are made in the precision of `x`, or of autocast where it is on; norms and the gradients of keys and values
    are summed in float32 at least.

    Args:
        x: [..., d_in].
        keys: [n, d_in].
        values: [n, d_out].
        recompute: makes the scores again in the backward pass.

    Returns:
        [..., d_out]. It can be differentiated once.
    """
    keep = torch.is_grad_enabled() and not recompute
    out: Tensor = _TiledPattention.apply(x.reshape(-1, x.shape[-1]), keys, values, groups, keep)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], values.shape[-1])


class _TiledPattention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keys: Tensor, values: Tensor, groups: Groups, keep: bool) -> Tensor:
        dtype, tokens, n = product_dtype(x), len(x), len(keys)
        rows = score_rows(tokens, n, x.device.type, remade=not keep)
        k, v = keys.to(dtype), values.to(dtype)
        weights = x.new_empty(rows, n, dtype=dtype)
        scores = x.new_empty(tokens, n, dtype=dtype) if keep else weights
        scale = x.new_empty(tokens, len(groups), dtype=wide(dtype))
        out = x.new_empty(tokens, v.shape[1], dtype=dtype)
        with without_autocast(x):
            for start in range(0, tokens, rows):
                a, s_tile = _rows(x, start, rows).to(dtype), _rows(scale, start, rows)
                z = torch.mm(a, k.T, out=_rows(scores, start if keep else 0, len(a)))
                for part, group, s in zip(_parts(z, groups), groups, _columns(s_tile), strict=True):
                    norm = torch.linalg.vector_norm(part, dim=-1, keepdim=True, dtype=s.dtype)
                    torch.rsqrt(norm.square_().div_(group.tau**2).add_(NORM_EPS), out=s)
                    part *= s.to(dtype)
                torch.mm(_gelu(z, out=_rows(weights, 0, len(a))), v, out=_rows(out, start, rows))
        ctx.save_for_backward(x, keys, values, scale, scores if keep else None)
        ctx.groups, ctx.rows, ctx.dtype = groups, rows, dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, keys, values, scale, kept = ctx.saved_tensors
        groups, rows, dtype = ctx.groups, ctx.rows, ctx.dtype
        k, v = keys.to(dtype), values.to(dtype)
        d_x = torch.empty_like(x)
        d_keys = torch.empty_like(keys, dtype=wide(keys.dtype))
        d_values = torch.empty_like(values, dtype=wide(values.dtype))
        d_scores = x.new_empty(rows, len(keys), dtype=dtype)
        weights = torch.empty_like(d_scores)
        scores = torch.empty_like(d_scores) if kept is None else None
        with without_autocast(x):
            for start in range(0, len(x), rows):
                a, g, s_tile = _rows(x, start, rows).to(dtype), _rows(d_out, start, rows), _rows(scale, start, rows)
                if scores is None:
                    z = _rows(kept, start, rows)
                else:
                    z = torch.mm(a, k.T, out=_rows(scores, 0, len(a)))
                    for part, s in zip(_parts(z, groups), _columns(s_tile), strict=True):
                        part *= s.to(dtype)
                w = _gelu(z, out=_rows(weights, 0, len(a)))
                add_product(d_values, w.T, g, first=start == 0)
                d_z = torch.mm(g, v.T, out=_rows(d_scores, 0, len(a)))
                _gelu_backward(d_z, z, grad_input=d_z)
                _through_norm(d_z, z, s_tile, groups, w)
                product(d_z, k, out=_rows(d_x, start, rows))
                add_product(d_keys, d_z.T, a, first=start == 0)
        return d_x, d_keys.to(keys.dtype), d_values.to(values.dtype), None, None


def _through_norm(d_z: Tensor, z: Tensor, scale: Tensor, groups: Groups, buffer: Tensor) -> None:
    """Turns the gradient of the scaled scores into that of the scores, in place."""
    parts = (_parts(each, groups) for each in (d_z, z, buffer))
    for group, s, d_part, part, spare in zip(groups, _columns(scale), *parts, strict=True):
        along = torch.mul(d_part, part, out=spare).sum(-1, keepdim=True, dtype=s.dtype).div_(-(group.tau**2))
        d_part.addcmul_(part, along.to(part.dtype)).mul_(s.to(part.dtype))


def _parts(scores: Tensor, groups: Groups) -> tuple[Tensor, ...]:
    if len(groups) == 1:
        return (scores,)
    parts: tuple[Tensor, ...] = scores.split([group.n for group in groups], dim=-1)
    return parts


def _columns(scale: Tensor) -> tuple[Tensor, ...]:
    return (scale,) if scale.shape[1] == 1 else scale.split(1, dim=-1)


def _rows(tensor: Tensor, start: int, count: int) -> Tensor:
    """Rows from `start` on. In a small model, whose tokens are one tile, making views took a tenth of a step."""
    return tensor if start == 0 and count == len(tensor) else tensor[start : start + count]
