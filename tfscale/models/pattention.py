"""Pattention, the attention between tokens and parameter tokens that replaces linear projections in a TokenFormer."""

import torch
from torch import Tensor, nn

from tfscale.models.checkpointing import perhaps_checkpointed
from tfscale.models.joined_pattention import joined_pattention
from tfscale.models.norm_activation import weigh
from tfscale.models.parameter_tokens import Groups, NormActivation, total
from tfscale.models.precision import product_dtype
from tfscale.models.tiled_pattention import Projections, tiled_pattention


def pattention(
    x: Tensor, keys: Tensor, values: Tensor, groups: Groups, kind: NormActivation, recompute: bool = False
) -> Tensor:
    """Return Theta(x K^T) V (the paper's Eqs. 4 and 16), with each group of parameter tokens normalised separately.

    Args:
        x: [..., d_in].
        keys: [n, d_in].
        values: [n, d_out].
        groups: groups of parameter tokens, whose sizes sum to n.
        recompute: True to recompute the scores in the backward pass instead of storing them.

    Returns:
        [..., d_out].
    """
    return pattentions(x, [(keys, values)], groups, kind, recompute).squeeze(-2)


def pattentions(
    x: Tensor,
    projections: Projections,
    groups: Groups,
    kind: NormActivation,
    recompute: bool = False,
    kernels: bool = False,
) -> Tensor:
    """Return the outputs [..., projections, d_out] of several Pattention projections of the same shape for the same
    input x [..., d_in].

    Args:
        kernels: True to use this package's Triton kernels.
    """
    compiling = torch.compiler.is_compiling()
    if kernels or (compiling and product_dtype(x).itemsize == 2):
        return joined_pattention(x, projections, groups, kind, recompute, kernels)
    # Tiles were faster at every measured shape on a CPU. torch.compile fuses norm and GELU of the plain function.
    if kind == "l2_norm_gelu" and not compiling:
        return tiled_pattention(x, projections, groups, recompute)
    outputs = [perhaps_checkpointed(recompute, plain_pattention, x, *each, groups, kind) for each in projections]
    return torch.stack(outputs, dim=-2)


def plain_pattention(x: Tensor, keys: Tensor, values: Tensor, groups: Groups, kind: NormActivation) -> Tensor:
    """Return the output of `pattention`, computed directly from the definition and differentiated by autograd."""
    return weigh(x @ keys.T, groups, kind) @ values


class Pattention(nn.Module):
    """Projection by parameter tokens, with the parameters `keys` [n, d_in] and `values` [n, d_out]."""

    recompute = False
    """True if the backward pass recomputes the scores (activation checkpointing)."""
    kernels = False
    """True to use this package's Triton kernels for the norm and GELU."""
    first: int | None = None
    """Number of leading groups that the forward pass uses; None: all groups."""

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
    """Query, key and value projections by parameter tokens, computed together because they share their input. The three
    submodules only store the weights and are never called."""

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
