"""Counts of parameters, FLOPs and memory, computed from a model's config without building the model.

A multiplication and an addition count as two FLOPs. The FLOPs of attention are counted for the full context, without
halving for the causal mask (as in the paper's Table 3 and in torch.utils.flop_counter). A backward pass counts as two
forward passes. A test compares the FLOPs of matrix products with those that torch.utils.flop_counter counts.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import astuple, dataclass

from tfscale.models.config import ModelConfig
from tfscale.models.execution import Execution
from tfscale.models.tiles import logit_rows


def parameters(config: ModelConfig) -> int:
    """Return the number of trainable parameters of a model; the tied embedding counts once."""
    return non_embedding_parameters(config) + config.vocab_size * config.d_model


def non_embedding_parameters(config: ModelConfig) -> int:
    """Return the number of trainable parameters of the blocks and the final norm. For a TokenFormer, this number is 2 L
    d (n_q + n_k + n_v + n_o + n_ffn) + 2 d (paper, Table 3)."""
    d = config.d_model
    return config.n_layer * (config.block_matrices + config.block_vectors) + 2 * d


def nearest(amount: Callable[[int], int], wanted: int, most: int) -> int:
    """Return the integer i from 1 to `most` for which `amount(i)`, such as a number of parameters, is nearest to
    `wanted` in ratio. The function `amount` must be increasing."""
    above = 1 + bisect_left(range(1, most), wanted, key=amount)
    return min((max(1, above - 1), above), key=lambda number: abs(math.log(amount(number) / wanted)))


@dataclass(frozen=True)
class Flops:
    """FLOPs per token of a forward pass over a sequence as long as the model's context."""

    projections: int
    """FLOPs of the matrix products in Pattention or linear layers."""
    attention: int
    """FLOPs of the attention scores and of the weighted sums of the attention values."""
    logits: int
    norm: int
    """FLOPs of the norm inside Pattention, which squares, sums and scales the scores. `torch.utils.flop_counter` does
    not count these FLOPs."""

    @property
    def forward(self) -> int:
        """FLOPs per token of the whole forward pass."""
        return self.projections + self.attention + self.logits + self.norm

    @property
    def training(self) -> int:
        """Model FLOPs per token of a forward and a backward pass, as reported for training."""
        return 3 * self.forward


def flops(config: ModelConfig) -> Flops:
    """Return the FLOPs per token of a model's forward pass."""
    return Flops(
        projections=2 * config.n_layer * config.block_matrices,
        attention=4 * config.n_layer * config.d_model * config.context,
        logits=2 * config.d_model * config.vocab_size,
        norm=config.n_layer * config.block_norm_flops,
    )


MEMORY_SHARE = 0.8
"""Fraction of a device's memory that a planned training step may use. The remaining memory is for allocations that the
estimate of `memory` does not include."""


@dataclass(frozen=True)
class Memory:
    """Estimate of the peak memory of a training step on one device, in bytes. The weights and the accumulated gradients
    are in float32."""

    weights: int
    gradients: int
    """Bytes of the gradients of all weights, or of only the embedding if weights are updated during the backward pass.
    DDP's buckets are included if they are allocated in addition to the gradients."""
    moments: int
    """Bytes of the optimizer state."""
    activations: int
    """Bytes of the activations kept for the backward pass, without `logits`."""
    logits: int
    """Bytes of the gradients that the loss computes together with the logits. These are the gradient of the final
    hidden states and, unless weights are updated during the backward pass, a gradient of the embedding that is separate
    from the one in `gradients`."""
    temporary: int
    """Bytes of the largest of three temporary allocations, which exist at different times. The first is a tile of
    logits. The second is the memory for the backward pass of a block (`ModelConfig.layer_temporaries` and recomputed
    activations). The third is the memory that an update of the weights allocates, minus `activations` and `logits`,
    which are free during the update."""
    gathered: int
    """Bytes of the weights gathered from shards (the embedding, the current block and the next block) and of the
    gradient of the current block before it is sharded."""

    @property
    def total(self) -> int:
        """Peak memory of the training step in bytes, computed as the sum of all fields."""
        return sum(astuple(self))


def memory(config: ModelConfig, execution: Execution) -> Memory:
    """Return the estimated peak memory of a training step. `python -m benchmarks memory` measures the actual peak
    memory."""
    held = 4 * parameters(config) // execution.shards
    embedding = 4 * config.vocab_size * config.d_model
    tokens = execution.sequences * config.context
    # If blocks are recomputed, only the input of each block is kept, and one block at a time is recomputed.
    kept, remade = tokens * 4 * config.d_model, _kept_by_block(config, execution)
    if execution.recompute != "blocks":
        kept, remade = remade, 0
    activations = config.n_layer * kept + tokens * 4 * 2 * config.d_model
    logits = 4 * tokens * config.d_model + (0 if execution.in_backward else embedding)
    return Memory(
        weights=held,
        gradients=embedding if execution.in_backward else held * (2 if execution.buckets else 1),
        moments=round(execution.state_bytes * parameters(config)) // execution.shards,
        activations=activations,
        logits=logits,
        temporary=max(
            _logits_tile(config, execution),
            config.layer_temporaries(execution) + remade,
            execution.update_bytes - activations - logits,
        ),
        gathered=_gathered(config, execution) if execution.shards > 1 else 0,
    )


def _kept_by_block(config: ModelConfig, execution: Execution) -> int:
    """Return the number of bytes that a block keeps for its backward pass if the block is not recomputed."""
    kept = execution.sequences * config.context * config.block_activations(execution)
    # Sharded weights are gathered in bf16, so autocast does not copy them.
    if config.keeps_casts(execution) and execution.activation_bytes == 2 and execution.shards == 1:
        kept += 2 * config.block_matrices
    return kept


def _logits_tile(config: ModelConfig, execution: Execution) -> int:
    rows = logit_rows(execution.sequences * config.context, config.vocab_size, execution.device)
    if execution.activation_bytes == 4:
        return 4 * rows * config.vocab_size
    # Logits in bf16 and in float32, and their gradient in bf16; the embedding and its gradient in bf16.
    return 8 * rows * config.vocab_size + 4 * config.vocab_size * config.d_model


def _gathered(config: ModelConfig, execution: Execution) -> int:
    block = config.block_matrices + config.block_vectors
    # The current block, its gradient before it is sharded, and the next block have the precision of the forward pass.
    return 4 * config.vocab_size * config.d_model + 3 * execution.activation_bytes * block
