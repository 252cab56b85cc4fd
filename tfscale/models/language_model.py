"""The two families: one decoder, whose projections are Pattention (TokenFormer) or linear (Transformer)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tfscale.models.cache import LayerPast, Past
from tfscale.models.config import ModelConfig, TokenFormerConfig, TransformerConfig, rotary_dims
from tfscale.models.cross_entropy import Reduction, cross_entropy, token_losses
from tfscale.models.execution import Recompute
from tfscale.models.pattention import Pattention, QKVPattention

LAYER_NORM_EPS = 1e-5
ROTARY_BASE = 10_000.0


class LanguageModel(nn.Module):
    """A causal decoder with tied embeddings. Build it with `build_model`; `init_weights` fills its parameters."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.final_norm = nn.LayerNorm(config.d_model, eps=LAYER_NORM_EPS)
        self._recompute: Recompute = "none"
        self._fused_loss = False

    @property
    def recompute(self) -> Recompute:
        """What the backward pass makes again instead of keeping it; "none" unless set."""
        return self._recompute

    @recompute.setter
    def recompute(self, what: Recompute) -> None:
        self._recompute = what
        for module in self.modules():
            if isinstance(module, Pattention):
                module.recompute = what == "pattention"

    def compile_parts(self) -> None:
        """Compiles each block on its own, so that they share one compilation, and what the loss does to its logits."""
        for block in self.blocks:
            block.compile()
        self._fused_loss = True

    def hidden(self, tokens: Tensor, past: Past | None = None) -> Tensor:
        """tokens [batch, time] to the normalised states [batch, time, d_model] that the logits are made from. With a
        `past` the tokens follow what it holds, and are added to it."""
        x = F.embedding(tokens, self.embedding)
        rotation = rotary_table(self.config, tokens.shape[1], x.device, x.dtype, past.length if past else 0)
        layers = past.layers if past else [None] * len(self.blocks)
        again = self._recompute == "blocks" and torch.is_grad_enabled()
        for block, layer in zip(self.blocks, layers, strict=True):
            x = _checkpointed(block, x, rotation, layer) if again else block(x, rotation, layer)
        normed: Tensor = self.final_norm(x)
        return normed

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [batch, time] to logits [batch, time, vocab_size]."""
        return self.hidden(tokens) @ self.embedding.T

    def loss(self, tokens: Tensor, targets: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Cross-entropy in nats a token; `targets` [batch, time] are the next tokens."""
        return cross_entropy(self.hidden(tokens), self.embedding, targets, reduction, self._fused_loss)

    @torch.no_grad()
    def sequence_losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of every sequence [batch], in nats, summed over its tokens; without gradients."""
        return token_losses(self.hidden(tokens), self.embedding, targets, self._fused_loss).sum(-1)


def _checkpointed(block: nn.Module, *inputs: object) -> Tensor:
    out: Tensor = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out


class Block(nn.Module):
    """x + attention(norm(x)), then + ffn(norm(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = _block_norm(config)
        self.attention = Attention(config)
        self.ffn_norm = _block_norm(config)
        self.ffn: nn.Module
        if isinstance(config, TokenFormerConfig):
            self.ffn = Pattention(config.d_model, config.d_model, config.ffn, config.norm_activation)
        else:
            self.ffn = FeedForward(config)

    def forward(self, x: Tensor, rotation: Tensor | None, past: LayerPast | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotation, past)
        out: Tensor = x + self.ffn(self.ffn_norm(x))
        return out


def _block_norm(config: ModelConfig) -> nn.LayerNorm:
    # TokenFormer's block norms have no parameters, so that nothing but tokens grows (paper, section 3.3).
    parametric = config.family == TransformerConfig.family
    return nn.LayerNorm(config.d_model, eps=LAYER_NORM_EPS, elementwise_affine=parametric, bias=False)


class Attention(nn.Module):
    """Causal multi-head self-attention, rotary on the first `rotary_dims` of each head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head, d = config.n_head, config.d_model
        self.qkv: nn.Module
        self.output: nn.Module
        if isinstance(config, TokenFormerConfig):
            self.qkv = QKVPattention(d, config.qkv, config.norm_activation)
            self.output = Pattention(d, d, config.out, config.norm_activation)
        else:
            self.qkv = QKVLinear(d)
            self.output = nn.Linear(d, d, bias=False)

    def forward(self, x: Tensor, rotation: Tensor | None, past: LayerPast | None = None) -> Tensor:
        heads = (x.shape[0], x.shape[1], self.n_head, -1)
        q, k, v = (part.view(heads).transpose(1, 2) for part in self.qkv(x))
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if past is None:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            k, v, mask = past.extend(k, v)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(x.shape))
        return out


class QKVLinear(nn.Module):
    """Query, key and value projections of the Transformer in one product."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3 * d_model, d_model))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return F.linear(x, self.weight).chunk(3, dim=-1)


class FeedForward(nn.Module):
    """The Transformer's two-layer GELU network."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.gelu(self.up(x)))
        return out


def rotary_table(
    config: ModelConfig, time: int, device: torch.device, dtype: torch.dtype, start: int = 0
) -> Tensor | None:
    """cos and sin of the angles of `time` positions from `start` on, [2, time, r/2]; None where nothing rotates.

    Inverse frequencies are 10000^(-2j/r) over the r rotating dimensions (the official GPU configs' `rotary_pct`).
    """
    r = rotary_dims(config)
    if r == 0:
        return None
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    frequency = ROTARY_BASE ** (-torch.arange(0, r, 2, device=device, dtype=wide) / r)
    angles = torch.outer(torch.arange(start, start + time, device=device, dtype=wide), frequency)
    return torch.stack([angles.cos(), angles.sin()]).to(dtype)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turns the two halves of the first r dimensions of x [..., time, head_dim] against each other."""
    cos, sin = rotation
    half = cos.shape[-1]
    a, b, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)
