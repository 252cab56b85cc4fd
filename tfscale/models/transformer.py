"""Config of the Transformer model family, which serves as the baseline."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tfscale.models.config import ModelConfig
from tfscale.models.execution import Execution
from tfscale.models.matrices import Matrix

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TransformerConfig(ModelConfig):
    """Config of a GPT-2-like model in the paper's setting: rotary position embeddings, no biases in linear layers, a
    GELU feed-forward network, and pre-norm blocks."""

    d_ff: int

    family: ClassVar[str] = "transformer"
    title: ClassVar[str] = "Transformer"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_ff < 1:
            raise ValueError(f"d_ff={self.d_ff}: must be at least 1")

    def build_block(self) -> "nn.Module":
        from torch import nn

        from tfscale.models.block import Block, FeedForward, QKVLinear

        d = self.d_model
        output = nn.Linear(d, d, bias=False)
        return Block(d, self.n_head, qkv=QKVLinear(d), output=output, ffn=FeedForward(d, self.d_ff), norm_gains=True)

    @property
    def block_weights(self) -> Mapping[str, Matrix]:
        d, d_ff = self.d_model, self.d_ff
        return {
            "attention.qkv.weight": Matrix(d, d, maps=3),
            "attention.output.weight": Matrix(d, d),
            "ffn.up.weight": Matrix(d, d_ff),
            "ffn.down.weight": Matrix(d_ff, d),
        }

    @property
    def block_vectors(self) -> int:
        return 2 * self.d_model

    def block_activations(self, execution: Execution) -> int:
        # The inputs of two norms in float32; the outputs of the norms, the values, the rotated queries and keys, and
        # the attention output; and the input and output of the GELU. Compiled code keeps the output of the attention's
        # projection instead of the input of the second norm.
        d, width = self.d_model, execution.activation_bytes
        second = width if execution.compiled else 4
        return (4 + second) * d + width * (6 * d + 2 * self.d_ff)

    def layer_temporaries(self, execution: Execution) -> int:
        tokens = execution.sequences * self.context
        return 2 * execution.activation_bytes * tokens * self.d_ff + 4 * self.d_model * self.d_ff

    def init_std(self, name: str) -> float:
        """Return the standard deviation of the initial values of a matrix, as in the Pythia configs. It is
        `residual_std` for matrices that write into the residual stream, and sqrt(2 / (5 d_model)) for all other
        matrices (`small_init`, which is 0.02 at d_model = 1000)."""
        if name.endswith(("output.weight", "down.weight")):
            return self.residual_std
        return math.sqrt(2 / (5 * self.d_model))

    @property
    def details(self) -> str:
        return f"feed-forward width {self.d_ff}"
