"""Linear layers of the Transformer."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class QKVLinear(nn.Module):
    """Query, key and value projections, computed in one matrix product."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3 * d_model, d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Return the queries, keys and values [..., 3, d_model] of inputs x [..., d_model]."""
        out: Tensor = F.linear(x, self.weight).unflatten(-1, (3, -1))
        return out


class FeedForward(nn.Module):
    """Feed-forward network with two linear layers without biases, and a GELU in between."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.gelu(self.up(x)))
        return out
