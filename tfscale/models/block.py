"""Pre-norm decoder block that all model families share, and the linear layers of the Transformer."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfscale.models.cache import Extend
from tfscale.models.rotary import Rotation, rotated_heads

LAYER_NORM_EPS = 1e-5


class Block(nn.Module):
    """Pre-norm decoder block: x = x + attention(norm(x)), then x + ffn(norm(x)).

    Args:
        qkv: projection of [..., d_model] to queries, keys and values [..., 3, d_model].
        output: projection of the attention output, [..., d_model] to [..., d_model].
        ffn: feed-forward network, [..., d_model] to [..., d_model].
        norm_gains: True if the two norms have gains. The norms never have biases.
    """

    def __init__(
        self, d_model: int, n_head: int, qkv: nn.Module, output: nn.Module, ffn: nn.Module, norm_gains: bool
    ) -> None:
        super().__init__()
        # The order of the modules determines the order in which gradient norms are summed.
        self.attention_norm = nn.LayerNorm(d_model, LAYER_NORM_EPS, elementwise_affine=norm_gains, bias=False)
        self.attention = Attention(n_head, qkv, output)
        self.ffn_norm = nn.LayerNorm(d_model, LAYER_NORM_EPS, elementwise_affine=norm_gains, bias=False)
        self.ffn = ffn

    def forward(self, x: Tensor, rotation: Rotation | None, extend: Extend | None = None) -> Tensor:
        """Return the hidden states [batch, time, d_model] after the block. `x` contains the hidden states before the
        block, in the same shape. If `extend` is given, the keys and values are appended to a cache, and attention
        includes the preceding positions in the cache."""
        x = x + self.attention(self.attention_norm(x), rotation, extend)
        out: Tensor = x + self.ffn(self.ffn_norm(x))
        return out


class Attention(nn.Module):
    """Causal multi-head self-attention, with rotary position embeddings if a rotation is given."""

    def __init__(self, n_head: int, qkv: nn.Module, output: nn.Module) -> None:
        super().__init__()
        self.n_head, self.qkv, self.output = n_head, qkv, output

    def forward(self, x: Tensor, rotation: Rotation | None, extend: Extend | None = None) -> Tensor:
        heads = rotated_heads(self.qkv(x).unflatten(-1, (self.n_head, -1)), rotation)
        q, k, v = (part.transpose(1, 2) for part in heads)
        if extend is None:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            k, v, mask = extend(k, v)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(x.shape))
        return out


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
