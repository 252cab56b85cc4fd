"""Functions that compute the norm and activation of Pattention directly from their definition."""

from itertools import accumulate
from typing import assert_never

import torch
from torch import Tensor
from torch.nn import functional as F

from tfscale.models.parameter_tokens import Groups, NormActivation
from tfscale.models.tiled_pattention import NORM_EPS


def weigh(scores: Tensor, groups: Groups, kind: NormActivation) -> Tensor:
    """Return the weights of the values for scores [..., n or more], in the same shape. Each group of parameter tokens
    is normalised separately. If there are more than n scores, the additional scores belong to padding and are included
    in the last group."""
    if len(groups) == 1:
        return norm_activation(scores, groups[0].tau, kind)
    ends = [*accumulate(group.n for group in groups)]
    parts = scores.tensor_split(ends[:-1], dim=-1)
    weights = [norm_activation(part, group.tau, kind) for part, group in zip(parts, groups, strict=True)]
    return torch.cat(weights, dim=-1)


def norm_activation(scores: Tensor, tau: float, kind: NormActivation) -> Tensor:
    """Return Theta (the paper's Eq. 4) of the scores [..., n] of one group, which are the weights [..., n] of the
    values."""
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
    wide = scores if scores.dtype == torch.float64 else scores.float()
    return torch.rsqrt(wide.square().sum(-1, keepdim=True) / tau**2 + NORM_EPS).to(scores.dtype)
