"""Base class for the configs of all model families. Planning uses configs without building models, so torch is imported
only in the methods that build modules."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

from tfscale.models.execution import Execution, Recompute
from tfscale.models.matrices import Matrix, is_block_matrix

if TYPE_CHECKING:
    from torch import nn

Init = Literal["official", "scaled"]
"""Initialisation method. `official`: as in the configs of arXiv 2410.23168. `scaled`: a variant for models whose shapes
differ strongly from those configs (see `residual_std` and `init_std`)."""


@dataclass(frozen=True)
class ModelConfig(ABC):
    """Immutable config of a causal decoder with tied embeddings. Each model family has a subclass, which defines the
    block and counts its parameters, FLOPs and bytes. Tests compare these counts with measurements of built models."""

    n_layer: int
    d_model: int
    n_head: int
    vocab_size: int
    context: int
    rotary: float = field(default=0.25, kw_only=True)
    """Fraction of the head dimensions with rotary position embeddings. With 0, there are no position embeddings, as in
    the official TPU code."""
    init: Init = field(default="official", kw_only=True)
    base_fan_in: int | None = field(default=None, kw_only=True)
    """Fan-in at which AdamW updates a matrix of a block with exactly the optimizer's learning rate. If set, the updates
    and initial values of all matrices of the blocks depend on their fan-in (docs/optimizers.md). None selects the
    standard parametrization."""

    family: ClassVar[str]
    """Name of the model family in `tfscale.models.families.FAMILIES`."""
    title: ClassVar[str]
    """Display name of the model family."""
    recomputes: ClassVar[tuple[Recompute, ...]] = ("none", "blocks")
    """Activation-checkpointing modes that this family supports, in order of increasing recomputation."""

    def __post_init__(self) -> None:
        for name in ("n_layer", "d_model", "n_head", "vocab_size", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.d_model % self.n_head:
            raise ValueError(f"n_head={self.n_head}: must divide d_model={self.d_model}")
        if self.init not in get_args(Init):
            raise ValueError(f"init={self.init!r}: must be one of {', '.join(get_args(Init))}")
        if self.base_fan_in is not None and self.base_fan_in < 1:
            raise ValueError(f"base_fan_in={self.base_fan_in}: must be at least 1")
        if not 0 <= self.rotary <= 1:
            raise ValueError(f"rotary={self.rotary}: must be a fraction of the head dimensions from 0 to 1")

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return the config with the given fields. The values have JSON types, such as lists instead of tuples.

        Raises:
            TypeError: a field is missing or unknown.
            ValueError: a value is invalid.
        """
        return cls(**fields)

    @abstractmethod
    def build_block(self) -> "nn.Module":
        """Return a decoder block with uninitialised weights, usually a `tfscale.models.block.Block`. The `forward`
        method of the block must have the arguments and the result of `Block.forward`."""

    @property
    @abstractmethod
    def block_weights(self) -> Mapping[str, Matrix]:
        """Descriptions of the matrices of a block. The keys are the names of the matrices in the module that
        `build_block` returns."""

    @property
    def block_matrices(self) -> int:
        """Number of weights in the matrices of a block. Each weight costs two FLOPs per token in the forward pass."""
        return sum(matrix.size for matrix in self.block_weights.values())

    def matrix(self, name: str) -> Matrix:
        """Return the description of a matrix in a block by the name of the matrix in the model, such as
        `blocks.0.ffn.keys`.

        Raises:
            KeyError: a block has no matrix of this name.
        """
        _, _, within = name.split(".", 2)
        return self.block_weights[within]

    @property
    def block_vectors(self) -> int:
        """Number of weights in the gains and biases of a block."""
        return 0

    @property
    def block_norm_flops(self) -> int:
        """Number of element-wise FLOPs per token in the norms inside the projections of a block, such as Pattention's
        norm of the scores."""
        return 0

    @abstractmethod
    def block_activations(self, execution: Execution) -> int:
        """Return the number of bytes per token that a block keeps for its backward pass if the block is not
        recomputed."""

    def keeps_casts(self, execution: Execution) -> bool:
        """Return True if the backward pass reuses the bf16 copies that autocast makes of a block's matrices, so that
        the copies stay in memory."""
        return True

    @abstractmethod
    def layer_temporaries(self, execution: Execution) -> int:
        """Return the number of bytes that the backward pass of a block temporarily allocates for the block's largest
        layer. These bytes hold the gradients of the layer's weights, and the gradients of the layer's scores or hidden
        activations."""

    @abstractmethod
    def init_std(self, name: str) -> float:
        """Return the initial standard deviation of the matrix called `name` in the standard parametrization."""

    def initial_std(self, name: str) -> float:
        """Return the initial standard deviation of the matrix called `name`. With the parametrization by fan-in, the
        result for a matrix of a block is `init_std` times sqrt(d_model / fan-in), because `init_std` assumes a fan-in
        of d_model."""
        if self.base_fan_in is None or not is_block_matrix(name, 2):
            return self.init_std(name)
        return self.init_std(name) * math.sqrt(self.d_model / self.matrix(name).fan_in)

    @property
    def residual_std(self) -> float:
        """Standard deviation of the initial values of matrices that write into the residual stream.

        `official`: 2 / n_layer / sqrt(d_model) (`wang_init`, the `output_layer_init_method` of the official configs).
        `scaled`: 1 / sqrt(2 n_layer d_model), which depends on the number of layers as in GPT-2. This value is smaller
        than `official` in models with fewer than 8 layers.
        """
        depth = 1 / math.sqrt(2 * self.n_layer) if self.init == "scaled" else 2 / self.n_layer
        return depth / math.sqrt(self.d_model)

    @property
    def shape(self) -> tuple[str, str]:
        """Label and value of a table entry that shows the dimensions in which models of this family differ, such as
        `layers x width` and `12x768`."""
        return "layers x width", f"{self.n_layer}x{self.d_model}"

    @property
    @abstractmethod
    def details(self) -> str:
        """Phrase for model cards that describes the fields that only this model family has."""


def rotary_dims(config: ModelConfig) -> int:
    """Return the number of head dimensions with rotary position embeddings, rounded down to an even number."""
    return int(config.d_model // config.n_head * config.rotary) // 2 * 2
