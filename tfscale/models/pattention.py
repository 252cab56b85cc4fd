"""Pattention, the attention between tokens and parameter tokens that replaces linear projections in a TokenFormer."""

from collections.abc import Sequence
from itertools import accumulate
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfscale.models.checkpointing import checkpointed
from tfscale.models.parameter_tokens import Groups, NormActivation, aligned, total
from tfscale.models.precision import product_dtype, wide
from tfscale.models.tiled_pattention import NORM_EPS, Projections, tiled_pattention


def pattentions(
    x: Tensor,
    projections: Projections,
    groups: Groups,
    kind: NormActivation,
    recompute: bool = False,
    kernels: bool = False,
) -> Tensor:
    """Return Theta(x K^T) V (the paper's Eqs. 4 and 16) for the keys K and values V of several projections of the same
    input. The scores of each group of parameter tokens are normalised separately.

    Args:
        x: [..., d_in].
        groups: groups of the n parameter tokens of each projection. The sizes of the groups sum to n.
        recompute: True to recompute the scores in the backward pass instead of storing them.
        kernels: True to use this package's Triton kernels.

    Returns:
        [..., projections, d_out].
    """
    compiling = torch.compiler.is_compiling()
    if kernels or (compiling and product_dtype(x).itemsize == 2):
        return joined_pattention(x, projections, groups, kind, recompute, kernels)
    # Tiles were faster at every measured shape on a CPU. torch.compile fuses norm and GELU of the plain function.
    if kind == "l2_norm_gelu" and not compiling:
        return tiled_pattention(x, projections, groups, recompute)
    outputs = [checkpointed(plain_pattention, x, *each, groups, kind, when=recompute) for each in projections]
    return torch.stack(outputs, dim=-2)


def plain_pattention(x: Tensor, keys: Tensor, values: Tensor, groups: Groups, kind: NormActivation) -> Tensor:
    """Return the output [..., d_out] of one projection, computed directly from the definition and differentiated by
    autograd."""
    return weigh(x @ keys.T, groups, kind) @ values


def weigh(scores: Tensor, groups: Groups, kind: NormActivation) -> Tensor:
    """Return the weights of the values for scores [..., n or more], in the same shape. Each group of scores is
    normalised separately. Scores beyond n belong to padding and are included in the last group."""
    if len(groups) == 1:
        return norm_activation(scores, groups[0].tau, kind)
    ends = [*accumulate(group.n for group in groups)]
    parts = scores.tensor_split(ends[:-1], dim=-1)
    weights = [norm_activation(part, group.tau, kind) for part, group in zip(parts, groups, strict=True)]
    return torch.cat(weights, dim=-1)


def norm_activation(scores: Tensor, tau: float, kind: NormActivation) -> Tensor:
    """Return Theta (the paper's Eq. 4) of the scores [..., n] of one group. The result contains the weights of the
    values and has the shape of the scores."""
    if kind == "l2_norm_gelu":
        return F.gelu(scores * _scale(scores, tau))
    if kind == "l1_norm_gelu":
        return F.gelu(scores / (scores.abs().sum(-1, keepdim=True) / tau + NORM_EPS))
    if kind == "gelu_l2_norm":
        scores = F.gelu(scores)
        return scores * _scale(scores, tau)
    if kind == "softmax":
        return torch.softmax(scores, dim=-1) * tau
    assert_never(kind)


def _scale(scores: Tensor, tau: float) -> Tensor:
    """Return tau divided by the L2 norm [..., 1] of the scores [..., n]."""
    # Squares are summed in at least float32, because n is in the thousands and bf16 has only 8 bits of precision.
    squares = scores.to(wide(scores.dtype)).square()
    return torch.rsqrt(squares.sum(-1, keepdim=True) / tau**2 + NORM_EPS).to(scores.dtype)


def joined_pattention(
    x: Tensor, projections: Projections, groups: Groups, kind: NormActivation, recompute: bool, kernels: bool
) -> Tensor:
    """Return the same outputs as `pattentions`, computed in a way that is fast on a GPU. The weights are aligned, and
    one matrix product computes the scores of all projections.

    Matrix products on a GPU are fast if the length of a row is a multiple of 64. The numbers of parameter tokens in the
    paper (2,140, 4,850, 8,620) are not multiples of 64, so weights are padded with zero rows when they are cast.
    Padding does not change the output: a zero key has a score of zero, which adds nothing to a norm, and GELU(0) = 0.
    The backward pass casts the weights again. Otherwise, a copy of all weights, including sharded weights, would be
    kept for the backward pass.

    Args:
        kernels: True to use `norm_gelu_kernels` if `kind` is `l2_norm_gelu`.
    """
    if not (kernels and kind == "l2_norm_gelu"):
        return checkpointed(_joined, x, projections, groups, kind, when=recompute)
    from tfscale.models.norm_gelu_kernels import kernel_pattention  # needs Triton

    rows, keys, values = _operands(x, projections, groups, kind)
    out = kernel_pattention(rows, keys, values, groups, recompute)
    return out.view(*x.shape[:-1], *out.shape[1:])


def _joined(x: Tensor, projections: Projections, groups: Groups, kind: NormActivation) -> Tensor:
    rows, keys, values = _operands(x, projections, groups, kind)
    scores = (rows @ keys.flatten(0, 1).T).unflatten(-1, keys.shape[:2])
    out = torch.bmm(weigh(scores, groups, kind).transpose(0, 1), values).transpose(0, 1)
    return out.view(*x.shape[:-1], *out.shape[1:])


def _operands(
    x: Tensor, projections: Projections, groups: Groups, kind: NormActivation
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x as rows [tokens, d_in], and the aligned keys [projections, n, d_in] and values [projections, n,
    d_out]."""
    dtype, n = product_dtype(x), aligned(total(groups), kind)
    keys, values = (checkpointed(_join, half, dtype, n) for half in zip(*projections, strict=True))
    return x.reshape(-1, x.shape[-1]).to(dtype), keys, values


def _join(weights: Sequence[Tensor], dtype: torch.dtype, n: int) -> Tensor:
    """Return the weights [projections, n, d] of all projections, padded to n rows."""
    return torch.stack([F.pad(weight.to(dtype), (0, 0, 0, n - len(weight))) for weight in weights])


class Pattention(nn.Module):
    """Projection by parameter tokens, with the parameters `keys` [n, d_in] and `values` [n, d_out]."""

    recompute = False
    """True if the backward pass recomputes the scores (activation checkpointing)."""
    kernels = False
    """True to use this package's Triton kernels for the norm and GELU."""
    first: int | None = None
    """Number of leading groups that the forward pass uses, or None for all groups."""

    def __init__(self, d_in: int, d_out: int, groups: Groups, kind: NormActivation) -> None:
        super().__init__()
        self.groups, self.kind = groups, kind
        self.keys = nn.Parameter(torch.empty(total(groups), d_in))
        self.values = nn.Parameter(torch.empty(total(groups), d_out))

    def forward(self, x: Tensor) -> Tensor:
        projections = [self.projection]
        return pattentions(x, projections, self.used, self.kind, self.recompute, self.kernels).squeeze(-2)

    @property
    def used(self) -> Groups:
        """Groups of parameter tokens that the forward pass uses."""
        return self.groups[: self.first]

    @property
    def projection(self) -> tuple[Tensor, Tensor]:
        """Keys [n, d_in] and values [n, d_out] of the groups that the forward pass uses."""
        if self.first is None:
            return self.keys, self.values
        n = total(self.used)
        return self.keys[:n], self.values[:n]


class QKVPattention(nn.Module):
    """Query, key and value projections by parameter tokens. The three projections have the same input and are computed
    together. The three submodules only store the weights and are never called."""

    def __init__(self, d_model: int, groups: Groups, kind: NormActivation) -> None:
        super().__init__()
        self.query = Pattention(d_model, d_model, groups, kind)
        self.key = Pattention(d_model, d_model, groups, kind)
        self.value = Pattention(d_model, d_model, groups, kind)

    def forward(self, x: Tensor) -> Tensor:
        """Return the queries, keys and values [..., 3, d_model] of inputs x [..., d_model]."""
        first = self.query
        projections = [part.projection for part in (first, self.key, self.value)]
        return pattentions(x, projections, first.used, first.kind, first.recompute, first.kernels)
