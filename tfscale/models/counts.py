"""Exact counts from a model's config, without building it: parameters, FLOPs, memory.

FLOPs count a multiplication and an addition as two, attention over the full context squared (no causal halving, as
in the paper's Table 3 and in torch.utils.flop_counter), and a backward pass as twice the forward one. A test holds
the matrix products against torch.utils.flop_counter for both families.
"""

from dataclasses import dataclass

from tfscale.models.config import ModelConfig, TokenFormerConfig, total
from tfscale.models.execution import Execution


def parameters(config: ModelConfig) -> int:
    """Trained values of the whole model; the tied embedding counts once."""
    return non_embedding_parameters(config) + config.vocab_size * config.d_model


def non_embedding_parameters(config: ModelConfig) -> int:
    """Trained values of the blocks and the final norm. TokenFormer: 2 L d (n_q + n_k + n_v + n_o + n_ffn) and the
    final norm's 2 d (paper, Table 3)."""
    d = config.d_model
    return config.n_layer * (_projections(config) + _block_norms(config)) + 2 * d


def _projections(config: ModelConfig) -> int:
    """Weights of a block's matrix products; each makes two FLOPs a token."""
    d = config.d_model
    if isinstance(config, TokenFormerConfig):
        return 2 * d * _parameter_tokens(config)
    return 4 * d * d + 2 * d * config.d_ff


def _parameter_tokens(config: TokenFormerConfig) -> int:
    return 3 * total(config.qkv) + total(config.out) + total(config.ffn)


def _block_norms(config: ModelConfig) -> int:
    return 0 if isinstance(config, TokenFormerConfig) else 2 * config.d_model


@dataclass(frozen=True)
class Flops:
    """FLOPs of one token's forward pass, in a sequence of the model's context."""

    projections: int
    """Pattention or linear layers."""
    attention: int
    """Scores and mixing of tokens."""
    logits: int
    norm: int
    """Pattention's norm: square, sum and scale of each score. Element-wise, so no flop counter sees it."""

    @property
    def forward(self) -> int:
        """All parts of a token's forward pass."""
        return self.projections + self.attention + self.logits + self.norm

    @property
    def training(self) -> int:
        """Forward and backward pass of a token: the model FLOPs that the compute ledger adds up."""
        return 3 * self.forward


def flops(config: ModelConfig) -> Flops:
    """FLOPs a token of a model's forward pass."""
    norm = 3 * config.n_layer * _parameter_tokens(config) if isinstance(config, TokenFormerConfig) else 0
    return Flops(
        projections=2 * config.n_layer * _projections(config),
        attention=4 * config.n_layer * config.d_model * config.context,
        logits=2 * config.d_model * config.vocab_size,
        norm=norm,
    )


MEMORY_SHARE = 0.8
"""Of a device's memory, what a training step may be planned to take; the rest is for what is not counted here."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device that trains the whole model with AdamW, weights and moments in float32."""

    weights: int
    gradients: int
    moments: int
    activations: int
    """What the backward pass needs from the forward one, logits apart."""
    logits: int
    """Logits, their softmax and its gradient."""

    @property
    def total(self) -> int:
        """All parts together: about the peak of a training step."""
        return self.weights + self.gradients + self.moments + self.activations + self.logits


def memory(config: ModelConfig, execution: Execution) -> Memory:
    """Memory of training on one device."""
    weights = 4 * parameters(config)
    tokens, width = execution.sequences * config.context, execution.activation_bytes
    return Memory(
        weights=weights,
        gradients=weights,
        moments=2 * weights,
        activations=tokens * width * (config.n_layer * _saved_per_block(config) + 2 * config.d_model),
        logits=tokens * config.vocab_size * (2 * 4 + width),
    )


def _saved_per_block(config: ModelConfig) -> int:
    """Values a token that a block keeps for its backward pass.

    Both families: the inputs and outputs of two norms (4 d), the projections that v is a view of (3 d), q and k after
    rotation (2 d), and the mixed values before and after their heads are joined (2 d). A Pattention keeps its scores,
    the scaled scores and the weights (3 n); the Transformer keeps both sides of its GELU.
    """
    if isinstance(config, TokenFormerConfig):
        return 11 * config.d_model + 3 * _parameter_tokens(config)
    return 11 * config.d_model + 2 * config.d_ff
