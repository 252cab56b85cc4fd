"""The two families: one decoder, whose projections are Pattention (TokenFormer) or linear (Transformer)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tfscale.models.cache import LayerPast, Past
from tfscale.models.config import ModelConfig, TokenFormerConfig, TransformerConfig
from tfscale.models.cross_entropy import Reduction, cross_entropy, token_losses
from tfscale.models.execution import Recompute
from tfscale.models.pattention import Pattention, QKVPattention
from tfscale.models.rotary import Rotation, rotary_table, rotated_heads
from tfscale.models.tied_embedding import look_up

LAYER_NORM_EPS = 1e-5


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

    def hidden(self, tokens: Tensor, past: Past | None = None, positions: Tensor | None = None) -> Tensor:
        """tokens [batch, time] to the normalised states [batch, time, d_model] that the logits are made from. With a
        `past` the tokens follow what it holds, and are added to it.

        Args:
            positions: [time] or [batch, time]; by default they count on from what `past` holds.
        """
        return self._hidden(F.embedding(tokens, self.embedding), past, positions)

    def _hidden(self, x: Tensor, past: Past | None = None, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            start = past.length if past else 0
            positions = torch.arange(start, start + x.shape[1], device=x.device)
        rotation = rotary_table(self.config, positions, x.dtype)
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
        x, embedding = look_up(tokens, self.embedding)
        return cross_entropy(self._hidden(x), embedding, targets, reduction, self._fused_loss)

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

    def forward(self, x: Tensor, rotation: Rotation | None, past: LayerPast | None = None) -> Tensor:
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

    def forward(self, x: Tensor, rotation: Rotation | None, past: LayerPast | None = None) -> Tensor:
        heads = rotated_heads(self.qkv(x).unflatten(-1, (self.n_head, -1)), rotation)
        q, k, v = (part.transpose(1, 2) for part in heads)
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

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_model] to [..., 3, d_model]."""
        out: Tensor = F.linear(x, self.weight).unflatten(-1, (3, -1))
        return out


class FeedForward(nn.Module):
    """The Transformer's two-layer GELU network."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.gelu(self.up(x)))
        return out
