"""Exact counts from a model's config, without building it: parameters, FLOPs, memory.

FLOPs count a multiplication and an addition as two, attention over the full context squared (no causal halving, as
in the paper's Table 3 and in torch.utils.flop_counter), and a backward pass as twice the forward one. A test holds
the matrix products against torch.utils.flop_counter for both families.
"""

from dataclasses import astuple, dataclass

from tfscale.models.config import ModelConfig
from tfscale.models.execution import Execution
from tfscale.models.tiles import logit_rows


def parameters(config: ModelConfig) -> int:
    """Trained values of the whole model; the tied embedding counts once."""
    return non_embedding_parameters(config) + config.vocab_size * config.d_model


def non_embedding_parameters(config: ModelConfig) -> int:
    """Trained values of the blocks and the final norm. TokenFormer: 2 L d (n_q + n_k + n_v + n_o + n_ffn) and the
    final norm's 2 d (paper, Table 3)."""
    d = config.d_model
    return config.n_layer * (config.block_matrices + config.block_vectors) + 2 * d


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
    return Flops(
        projections=2 * config.n_layer * config.block_matrices,
        attention=4 * config.n_layer * config.d_model * config.context,
        logits=2 * config.d_model * config.vocab_size,
        norm=config.n_layer * config.block_norm_flops,
    )


MEMORY_SHARE = 0.8
"""Of a device's memory, what a training step may be planned to take; the rest is for what is not counted here."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device at the peak of a training step: weights in float32 and what the optimizer keeps for them, the
    gradients of earlier micro-batches held."""

    weights: int
    gradients: int
    """Of all weights; of the embedding alone where the others are used up as soon as they are made."""
    moments: int
    activations: int
    """What the backward pass needs from the forward one, logits apart."""
    logits: int
    """What the loss makes of the logits, which are never whole: gradients of the last states and of the embedding."""
    temporary: int
    """The most that is held for a while and dropped: a tile of logits; or tiles of a layer's scores and the gradients
    of its weights, and the block's activations if they are made again."""
    gathered: int
    """Whole weights of what is being worked on, where a device holds a shard: the embedding, this block, the next."""

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(astuple(self))


def memory(config: ModelConfig, execution: Execution) -> Memory:
    """Memory of a training step on one device. `python -m benchmarks memory` compares it with real steps."""
    held = 4 * parameters(config) // execution.shards
    embedding = 4 * config.vocab_size * config.d_model
    tokens = execution.sequences * config.context
    made_again = execution.recompute == "blocks"
    activations = tokens * (_kept_by_blocks(config, execution) + 4 * 2 * config.d_model) + _casts(config, execution)
    return Memory(
        weights=held,
        gradients=embedding if execution.in_backward else held,
        moments=round(execution.state_bytes * parameters(config)) // execution.shards,
        activations=activations,
        logits=4 * tokens * config.d_model + (0 if execution.in_backward else embedding),
        temporary=max(
            _logits_tile(config, execution),
            config.layer_temporaries(execution) + (tokens * config.block_activations(execution) if made_again else 0),
        ),
        gathered=_gathered(config, execution) if execution.shards > 1 else 0,
    )


def _kept_by_blocks(config: ModelConfig, execution: Execution) -> int:
    """Bytes a token."""
    if execution.recompute == "blocks":
        return config.n_layer * 4 * config.d_model  # their inputs
    return config.n_layer * config.block_activations(execution)


def _casts(config: ModelConfig, execution: Execution) -> int:
    """Weights in bf16, which autocast keeps for the backward pass of linear layers."""
    whole = execution.recompute != "blocks" and execution.shards == 1
    if not config.keeps_casts or execution.activation_bytes == 4 or not whole:
        return 0
    return execution.activation_bytes * config.n_layer * config.block_matrices


def _logits_tile(config: ModelConfig, execution: Execution) -> int:
    rows = logit_rows(execution.sequences * config.context, config.vocab_size, execution.device)
    if execution.activation_bytes == 4:
        return 4 * rows * config.vocab_size
    # In bf16, then in float32, then their gradient in bf16; and the embedding and its gradient's part in bf16.
    return 8 * rows * config.vocab_size + 4 * config.vocab_size * config.d_model


def _gathered(config: ModelConfig, execution: Execution) -> int:
    block = config.block_matrices + config.block_vectors
    # In the precision of the forward pass: this block, the next one, and this one's gradient before it is divided.
    return 4 * config.vocab_size * config.d_model + 3 * execution.activation_bytes * block
