"""Triton kernels for the norm and GELU of Pattention, and a Pattention function that uses the kernels. For the backward
pass, the function stores at most one value per score.

The formulas are those of `tiled_pattention`. Each Triton program processes the scores of one token, projection and
group. The program first computes a sum over these scores, and then reads the scores again from a cache. The backward
pass recomputes the weights of the values, because the forward pass does not keep them. All arithmetic of the kernels is
in at least float32.

The kernels have not been measured on CUDA yet. The tests run them in Triton's interpreter.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.library import custom_op, triton_op, wrap_triton

from tfscale.models.parameter_tokens import Groups
from tfscale.models.precision import wide
from tfscale.models.tiled_pattention import NORM_EPS

LARGEST_BLOCK = 4096
"""Maximum number of scores that a Triton program processes at once."""
_ROOT_HALF = tl.constexpr(math.sqrt(0.5))
_ROOT_TWO_PI = tl.constexpr(math.sqrt(2 * math.pi))


def kernel_pattention(x: Tensor, keys: Tensor, values: Tensor, groups: Groups, recompute: bool = False) -> Tensor:
    """Return GELU(norm(x K^T)) V [tokens, projections, d_out] for the keys K and values V of each projection. The
    result can be differentiated once.

    Args:
        x: [tokens, d_in].
        keys, values: [projections, n, d_in] and [projections, n, d_out], with the dtype of x. If n is larger than the
            sum of the group sizes, the rows after the last group must be zero.
        recompute: True to recompute the scores in the backward pass. (With torch's own activation checkpointing, torch
            2.11 would store the scores of a custom autograd function like this one.)
    """
    out: Tensor = _KernelPattention.apply(x, keys, values, groups, recompute)  # type: ignore[no-untyped-call]
    return out


class _KernelPattention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keys: Tensor, values: Tensor, groups: Groups, recompute: bool) -> Tensor:
        ends, taus = [*accumulate(group.n for group in groups)], [group.tau for group in groups]
        ends[-1] = keys.shape[1]
        scores = _scores(x, keys)
        weights, scales = norm_gelu(scores, ends, taus)
        ctx.save_for_backward(x, keys, values, scales, *([] if recompute else [scores]))
        ctx.ends, ctx.taus = ends, taus
        return torch.bmm(weights.transpose(0, 1), values).transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, keys, values, scales, *kept = ctx.saved_tensors
        scores = kept[0] if kept else scores_again(x, keys, d_out)
        d_weights = torch.bmm(d_out.transpose(0, 1), values.transpose(1, 2))
        d_scores, weights = norm_gelu_backward(d_weights.transpose(0, 1), scores, scales, ctx.ends, ctx.taus)
        d_values = torch.bmm(weights.permute(1, 2, 0), d_out.transpose(0, 1))
        d_rows = d_scores.flatten(1)
        return d_rows @ keys.flatten(0, 1), (d_rows.T @ x).view_as(keys), d_values, None, None


def _scores(x: Tensor, keys: Tensor) -> Tensor:
    """Return the scores [tokens, projections, n] of inputs x for the keys of all projections."""
    return (x @ keys.flatten(0, 1).T).view(len(x), *keys.shape[:2])


@custom_op("tfscale::scores_again", mutates_args=())
def scores_again(x: Tensor, keys: Tensor, gradient: Tensor) -> Tensor:
    """Return the scores [tokens, projections, n], recomputed in the backward pass. The values of `gradient` are not
    used. The argument makes the operator depend on the backward pass, so that the compiler can neither move the
    operator into the forward pass nor reuse the scores of the forward pass."""
    return _scores(x, keys)


@scores_again.register_fake
def _(x: Tensor, keys: Tensor, gradient: Tensor) -> Tensor:
    return _scores(x, keys)


@triton_op("tfscale::norm_gelu", mutates_args=())
def norm_gelu(scores: Tensor, ends: Sequence[int], taus: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return the weights of the values [tokens, projections, n], which are the GELU of the scaled scores. Also return
    the factors by which the scores of each group are scaled, [tokens, projections, groups].

    Args:
        scores: [tokens, projections, n], contiguous.
        ends: index of the first score after each group.
        taus: `TokenGroup.tau` of each group.
    """
    tokens, projections, n = scores.shape
    weights = torch.empty_like(scores)
    scales = torch.empty(tokens, projections, len(ends), dtype=wide(scores.dtype), device=scores.device)
    for group, start, stop, tau, sizes in _launches(ends, taus):
        wrap_triton(_norm_gelu)[(tokens * projections,)](
            scores, weights, scales, n, start, stop, group, len(ends), TAU=tau, EPS=NORM_EPS, **sizes
        )
    return weights, scales


@triton_op("tfscale::norm_gelu_backward", mutates_args=())
def norm_gelu_backward(
    d_weights: Tensor, scores: Tensor, scales: Tensor, ends: Sequence[int], taus: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the scores, and the recomputed weights of the values, both [tokens, projections, n].

    Args:
        d_weights: gradients of the weights of the values, [tokens, projections, n], with a stride of 1 in the last
            dimension.
        scores, scales, ends, taus: arguments and results of `norm_gelu`.
    """
    tokens, projections, n = scores.shape
    d_scores, weights = torch.empty_like(scores), torch.empty_like(scores)
    by_token, by_projection, _ = d_weights.stride()
    for group, start, stop, tau, sizes in _launches(ends, taus):
        wrap_triton(_norm_gelu_backward)[(tokens, projections)](
            d_weights, scores, scales, d_scores, weights, by_token, by_projection, n, start, stop, group, len(ends),
            TAU=tau, **sizes,
        )  # fmt: skip
    return d_scores, weights


def _launches(ends: Sequence[int], taus: Sequence[float]) -> Iterator[tuple[int, int, int, float, dict[str, int]]]:
    """Yield the index, start, end and tau of each group, and the block size and number of warps for the Triton programs
    of the group."""
    for group, (start, stop, tau) in enumerate(zip([0, *ends], ends, taus, strict=False)):
        block = min(LARGEST_BLOCK, triton.next_power_of_2(stop - start))
        yield group, start, stop, tau, {"BLOCK": block, "num_warps": max(1, min(8, block // 256))}


@triton.jit
def _norm_gelu(  # type: ignore[no-untyped-def]
    scores, weights, scales, n, start, stop, group, groups,
    TAU: tl.constexpr, EPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    wide = scales.dtype.element_ty
    squares = tl.zeros([BLOCK], wide)
    for first in range(start, stop, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        score = tl.load(scores + row * n + columns, mask=columns < stop, other=0).to(wide)
        squares += score * score
    scale = tl.rsqrt(tl.sum(squares) / (TAU * TAU) + EPS)
    tl.store(scales + row * groups + group, scale)
    for first in range(start, stop, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        z = scale * tl.load(scores + row * n + columns, mask=columns < stop, other=0).to(wide)
        weight = z * _normal_cdf(z)
        tl.store(weights + row * n + columns, weight.to(weights.dtype.element_ty), mask=columns < stop)


@triton.jit
def _norm_gelu_backward(  # type: ignore[no-untyped-def]
    d_weights, scores, scales, d_scores, weights, by_token, by_projection, n, start, stop, group, groups,
    TAU: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token, projection = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    row = token * tl.num_programs(1) + projection
    d_weights += token * by_token + projection * by_projection
    scale = tl.load(scales + row * groups + group)
    wide = scales.dtype.element_ty
    along = tl.zeros([BLOCK], wide)
    for first in range(start, stop, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        z = scale * tl.load(scores + row * n + columns, mask=columns < stop, other=0).to(wide)
        d_z = tl.load(d_weights + columns, mask=columns < stop, other=0).to(wide) * _slope(z)
        along += d_z * z
    mean = tl.sum(along) / (TAU * TAU)
    for first in range(start, stop, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        z = scale * tl.load(scores + row * n + columns, mask=columns < stop, other=0).to(wide)
        d_z = tl.load(d_weights + columns, mask=columns < stop, other=0).to(wide) * _slope(z)
        d_score = scale * (d_z - z * mean)
        weight = z * _normal_cdf(z)
        tl.store(d_scores + row * n + columns, d_score.to(d_scores.dtype.element_ty), mask=columns < stop)
        tl.store(weights + row * n + columns, weight.to(weights.dtype.element_ty), mask=columns < stop)


@triton.jit
def _normal_cdf(z):  # type: ignore[no-untyped-def]
    """Return the distribution function of the standard normal distribution at z, which is GELU(z) / z."""
    return 0.5 + 0.5 * tl.erf(z * _ROOT_HALF)


@triton.jit
def _slope(z):  # type: ignore[no-untyped-def]
    """Return the derivative of GELU at z."""
    return _normal_cdf(z) + z * tl.exp(-0.5 * z * z) / _ROOT_TWO_PI
