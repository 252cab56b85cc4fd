"""Pattention: attention between tokens and parameter tokens, in place of a linear projection."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfscale.models.config import Groups, NormActivation, total

NORM_EPS = 1e-9
"""Keeps an all-zero row of scores at zero instead of NaN. It is added to norm / tau, the mean size of a score, and not
to the norm: so it grows along when tokens are copied and tau with them, and growth by copies stays exact."""


def norm_activation(scores: Tensor, tau: float, kind: NormActivation) -> Tensor:
    """Theta of Eq. 4: scores [..., n] of one group to weights [..., n]."""
    if kind == "l2_norm_gelu":
        return F.gelu(scores * _scale(scores, tau))
    if kind == "l1_norm_gelu":
        return F.gelu(scores / (scores.abs().sum(-1, keepdim=True) / tau + NORM_EPS))
    if kind == "gelu_l2_norm":
        scores = F.gelu(scores)
        return scores * _scale(scores, tau)
    return torch.softmax(scores, dim=-1) * tau


def _scale(scores: Tensor, tau: float) -> Tensor:
    """tau over the L2 norm."""
    # The sum of squares is taken in float32 at least: n is in the thousands and bf16 has 8 bits.
    wide = scores if scores.dtype == torch.float64 else scores.float()
    return torch.rsqrt(wide.square().sum(-1, keepdim=True) / tau**2 + NORM_EPS).to(scores.dtype)


def pattention(x: Tensor, keys: Tensor, values: Tensor, groups: Groups, kind: NormActivation) -> Tensor:
    """Theta(x K^T) V, each group of parameter tokens normalised on its own (Eqs. 4 and 16).

    Args:
        x: [..., d_in].
        keys: [n, d_in], or [b, n, d_in] to apply b layers to one x of [1, tokens, d_in].
        values: [n, d_out], or [b, n, d_out].
        groups: sizes sum to n.

    Returns:
        [..., d_out], or [b, tokens, d_out].
    """
    scores = x @ keys.transpose(-1, -2)
    if len(groups) == 1:
        return norm_activation(scores, groups[0].tau, kind) @ values
    parts = scores.split([group.n for group in groups], dim=-1)
    weights = [norm_activation(part, group.tau, kind) for part, group in zip(parts, groups, strict=True)]
    return torch.cat(weights, dim=-1) @ values


class Pattention(nn.Module):
    """One projection made of parameter tokens. `keys` [n, d_in] and `values` [n, d_out] are its only parameters."""

    def __init__(self, d_in: int, d_out: int, groups: Groups, kind: NormActivation) -> None:
        super().__init__()
        self.groups, self.kind = groups, kind
        self.keys = nn.Parameter(torch.empty(total(groups), d_in))
        self.values = nn.Parameter(torch.empty(total(groups), d_out))

    def forward(self, x: Tensor) -> Tensor:
        return pattention(x, self.keys, self.values, self.groups, self.kind)


class QKVPattention(nn.Module):
    """The query, key and value projections. They share their input, so one batched product makes all three."""

    def __init__(self, d_model: int, groups: Groups, kind: NormActivation) -> None:
        super().__init__()
        self.query = Pattention(d_model, d_model, groups, kind)
        self.key = Pattention(d_model, d_model, groups, kind)
        self.value = Pattention(d_model, d_model, groups, kind)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layers = (self.query, self.key, self.value)
        keys = torch.stack([layer.keys for layer in layers])
        values = torch.stack([layer.values for layer in layers])
        flat = x.reshape(1, -1, x.shape[-1])
        q, k, v = pattention(flat, keys, values, self.query.groups, self.query.kind).unbind(0)
        return q.view(x.shape), k.view(x.shape), v.view(x.shape)
