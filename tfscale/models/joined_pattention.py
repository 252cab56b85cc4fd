"""Pattention for a GPU: aligned weights, and one matrix product for the scores of all projections of an input.

A GPU's matrix products are fast if rows have a multiple of 64 values. The numbers of parameter tokens in the paper
(2,140, 4,850, 8,620) are none, so weights are padded with zero rows where they are cast. This is exact: a zero key has
a score of zero, which adds nothing to a norm; GELU keeps it at zero; and so it adds nothing to the output. Parameters,
checkpoints and tau are unchanged. Softmax gives zero scores a weight, so it is not padded.

The backward pass casts the weights again, because a copy of all weights would otherwise be kept until then, also of
weights that are sharded.
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
        recompute: True to recompute tensors of size n in the backward pass instead of storing them.
        kernels: True to use the kernels of `norm_gelu_kernels`, which exist for `l2_norm_gelu`; False for functions
            that torch.compile turns into kernels.
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
    """Return the rows of x [tokens, d_in], and aligned keys and values [projections, n, d]."""
    dtype, n = product_dtype(x), aligned(total(groups), kind)
    keys, values = (checkpointed(_join, half, dtype, n) for half in zip(*projections, strict=True))
    return x.reshape(-1, x.shape[-1]).to(dtype), keys, values


def _join(weights: Sequence[Tensor], dtype: torch.dtype, n: int) -> Tensor:
    """Return the weights [projections, n, d] of all projections, padded to n rows."""
    return torch.stack([F.pad(weight.to(dtype), (0, 0, 0, n - len(weight))) for weight in weights])
