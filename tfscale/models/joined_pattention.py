"""Pattention for a GPU, with aligned weights and one matrix product for the scores of all projections of an input.

Matrix products on a GPU are fast if the length of a row is a multiple of 64. The numbers of parameter tokens in the
paper (2,140, 4,850, 8,620) are not multiples of 64, so weights are padded with zero rows when they are cast. Padding
does not change the output: a zero key has a score of zero, which adds nothing to a norm, and GELU(0) = 0. Parameters,
checkpoints and tau are unchanged. With softmax, weights are not padded, because exp(0) = 1.

The backward pass casts the weights again. Otherwise, a copy of all weights, including those that are sharded, would be
kept for the backward pass.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tfscale.models.checkpointing import checkpointed, perhaps_checkpointed
from tfscale.models.norm_activation import weigh
from tfscale.models.parameter_tokens import Groups, NormActivation, aligned, total
from tfscale.models.precision import product_dtype
from tfscale.models.tiled_pattention import Projections


def joined_pattention(
    x: Tensor, projections: Projections, groups: Groups, kind: NormActivation, recompute: bool, kernels: bool
) -> Tensor:
    """Return the outputs [..., projections, d_out] of several projections of x [..., d_in].

    Args:
        recompute: True to recompute the scores in the backward pass instead of storing them.
        kernels: True to use the kernels of `norm_gelu_kernels` if `kind` is `l2_norm_gelu`. Otherwise, PyTorch
            functions are used, which torch.compile can fuse.
    """
    if not (kernels and kind == "l2_norm_gelu"):
        return perhaps_checkpointed(recompute, _joined, x, projections, groups, kind)
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
