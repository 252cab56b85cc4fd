"""Model family of Transformers with a gated feed-forward network (SwiGLU, arXiv 2002.05202)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from tfscale.models.block import Block, QKVLinear
from tfscale.models.config import ModelConfig
from tfscale.models.execution import Execution
from tfscale.models.families import FAMILIES
from tfscale.models.matrices import Matrix


@FAMILIES.register("gated")
@dataclass(frozen=True)
class GatedConfig(ModelConfig):
    d_ff: int

    family: ClassVar[str] = "gated"
    title: ClassVar[str] = "gated Transformer"

    def build_block(self) -> nn.Module:
        d = self.d_model
        output = nn.Linear(d, d, bias=False)
        return Block(d, self.n_head, QKVLinear(d), output, Gated(d, self.d_ff), norm_gains=True)

    @property
    def block_weights(self) -> Mapping[str, Matrix]:
        d, d_ff = self.d_model, self.d_ff
        return {
            "attention.qkv.weight": Matrix(d, d, maps=3),
            "attention.output.weight": Matrix(d, d),
            "ffn.gate.weight": Matrix(d, d_ff),
            "ffn.up.weight": Matrix(d, d_ff),
            "ffn.down.weight": Matrix(d_ff, d),
        }

    @property
    def block_vectors(self) -> int:
        return 2 * self.d_model

    def block_activations(self, execution: Execution) -> int:
        return 4 * 2 * self.d_model + execution.activation_bytes * (6 * self.d_model + 4 * self.d_ff)

    def layer_temporaries(self, execution: Execution) -> int:
        tokens = execution.sequences * self.context
        return 3 * execution.activation_bytes * tokens * self.d_ff + 4 * self.d_model * self.d_ff

    def init_std(self, name: str) -> float:
        return self.residual_std if name.endswith(("output.weight", "down.weight")) else math.sqrt(0.4 / self.d_model)

    @property
    def details(self) -> str:
        return f"gated feed-forward {self.d_ff}"


class Gated(nn.Module):
    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(d_model, d_ff, bias=False), nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out
