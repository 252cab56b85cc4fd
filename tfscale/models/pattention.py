"""Pattention, the attention between tokens and parameter tokens that replaces linear projections in a TokenFormer."""

from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tfscale.models.parameter_tokens import Groups, NormActivation, total
from tfscale.models.tiled_pattention import NORM_EPS, Projections, tiled_pattention


def norm_activation(scores: Tensor, tau: float, kind: NormActivation) -> Tensor:
    """Return the weights [..., n] of the values of one group, which are Theta (Eq. 4) of its scores [..., n]."""
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
    """Return tau divided by the L2 norm of the scores."""
    # Squares are summed in at least float32, because n is in the thousands and bf16 has only 8 bits of precision.
    wide = scores if scores.dtype == torch.float64 else scores.float()
    return torch.rsqrt(wide.square().sum(-1, keepdim=True) / tau**2 + NORM_EPS).to(scores.dtype)


def pattention(
    x: Tensor, keys: Tensor, values: Tensor, groups: Groups, kind: NormActivation, recompute: bool = False
) -> Tensor:
    """Return Theta(x K^T) V, with each group of parameter tokens normalised separately (Eqs. 4 and 16).

    Args:
        x: [..., d_in].
        keys: [n, d_in].
        values: [n, d_out].
        groups: groups of parameter tokens, whose sizes sum to n.
        recompute: True to recompute tensors of size n in the backward pass instead of storing them.

    Returns:
        [..., d_out].
    """
    if _in_tiles(kind):
        return tiled_pattention(x, [(keys, values)], groups, recompute).squeeze(-2)
    return _defined(x, keys, values, groups, kind, recompute)


def pattentions(
    x: Tensor, projections: Projections, groups: Groups, kind: NormActivation, recompute: bool = False
) -> Tensor:
    """Return the outputs [..., projections, d_out] of several Pattention projections of the same shape for the same
    input x [..., d_in]."""
    if _in_tiles(kind):
        return tiled_pattention(x, projections, groups, recompute)
    return torch.stack([_defined(x, *each, groups, kind, recompute) for each in projections], dim=-2)


def _in_tiles(kind: NormActivation) -> bool:
    """Return whether a kind is computed in tiles, which were faster at every measured shape. Only the paper's kind has
    a tiled implementation. torch.compile gets the plain implementation, in which it fuses norm and GELU."""
    return kind == "l2_norm_gelu" and not torch.compiler.is_compiling()


def _defined(x: Tensor, keys: Tensor, values: Tensor, groups: Groups, kind: NormActivation, recompute: bool) -> Tensor:
    if recompute and torch.is_grad_enabled():
        out: Tensor = checkpoint(
            plain_pattention, x, keys, values, groups, kind, use_reentrant=False, preserve_rng_state=False
        )
        return out
    return plain_pattention(x, keys, values, groups, kind)


def plain_pattention(x: Tensor, keys: Tensor, values: Tensor, groups: Groups, kind: NormActivation) -> Tensor:
    """Return the output of `pattention`, computed by the definition and differentiated by autograd."""
    scores = x @ keys.T
    if len(groups) == 1:
        return norm_activation(scores, groups[0].tau, kind) @ values
    parts = scores.split([group.n for group in groups], dim=-1)
    weights = [norm_activation(part, group.tau, kind) for part, group in zip(parts, groups, strict=True)]
    return torch.cat(weights, dim=-1) @ values


class Pattention(nn.Module):
    """Projection by parameter tokens, with the parameters `keys` [n, d_in] and `values` [n, d_out]."""

    recompute = False
    """True if the backward pass recomputes the scores (activation checkpointing)."""

    def __init__(self, d_in: int, d_out: int, groups: Groups, kind: NormActivation) -> None:
        super().__init__()
        self.groups, self.kind = groups, kind
        self.keys = nn.Parameter(torch.empty(total(groups), d_in))
        self.values = nn.Parameter(torch.empty(total(groups), d_out))

    def forward(self, x: Tensor) -> Tensor:
        return pattention(x, self.keys, self.values, self.groups, self.kind, self.recompute)


class QKVPattention(nn.Module):
    """Query, key and value projections by parameter tokens, computed together because they share their input. The three
    submodules only store the weights and are never called."""

    def __init__(self, d_model: int, groups: Groups, kind: NormActivation) -> None:
        super().__init__()
        self.query = Pattention(d_model, d_model, groups, kind)
        self.key = Pattention(d_model, d_model, groups, kind)
        self.value = Pattention(d_model, d_model, groups, kind)

    def forward(self, x: Tensor) -> Tensor:
        """Return the queries, keys and values [..., 3, d_model] of inputs x [..., d_model]."""
        parts = (self.query, self.key, self.value)
        projections = [(part.keys, part.values) for part in parts]
        return pattentions(x, projections, self.query.groups, self.query.kind, self.query.recompute)
