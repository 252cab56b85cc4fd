"""Config of the TokenFormer model family (arXiv 2410.23168)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args

from tfscale.models.config import ModelConfig
from tfscale.models.execution import Execution, Recompute
from tfscale.models.matrices import Matrix
from tfscale.models.parameter_tokens import Groups, NormActivation, TokenGroup, aligned, default_tau, total
from tfscale.models.tiles import score_rows

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TokenFormerConfig(ModelConfig):
    """Config of a TokenFormer language model, in which Pattention layers replace all linear layers of the blocks.

    `qkv` contains the groups of parameter tokens of each of the query, key and value projections, `out` contains the
    groups of the attention's output projection, and `ffn` contains the groups of the feed-forward layer. Most models
    have one group per layer; growth by groups adds more groups.
    """

    qkv: Groups
    out: Groups
    ffn: Groups
    norm_activation: NormActivation = "l2_norm_gelu"

    family: ClassVar[str] = "tokenformer"
    title: ClassVar[str] = "TokenFormer (arXiv 2410.23168)"
    recomputes: ClassVar[tuple[Recompute, ...]] = ("none", "pattention", "blocks")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm_activation not in get_args(NormActivation):
            raise ValueError(
                f"norm_activation={self.norm_activation!r}: must be one of {', '.join(get_args(NormActivation))}"
            )
        for name in ("qkv", "out", "ffn"):
            groups: Groups = getattr(self, name)
            if not groups or any(group.n < 1 or not group.tau > 0 for group in groups):
                raise ValueError(f"{name}={groups}: must be groups of at least one parameter token with a tau above 0")

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        groups = {name: tuple(TokenGroup(**group) for group in fields[name]) for name in ("qkv", "out", "ffn")}
        return cls(**{**fields, **groups})

    def build_block(self) -> "nn.Module":
        from tfscale.models.block import Block
        from tfscale.models.pattention import Pattention, QKVPattention

        d, kind = self.d_model, self.norm_activation
        # The norms of the block have no gains, so only parameter tokens grow (paper, section 3.3).
        return Block(
            d,
            self.n_head,
            qkv=QKVPattention(d, self.qkv, kind),
            output=Pattention(d, d, self.out, kind),
            ffn=Pattention(d, d, self.ffn, kind),
            norm_gains=False,
        )

    @property
    def tokens(self) -> tuple[int, int, int]:
        """Numbers of parameter tokens in each of the query, key and value projections, in the output projection, and in
        the feed-forward layer."""
        return total(self.qkv), total(self.out), total(self.ffn)

    def with_tokens(self, tokens: tuple[int, int, int]) -> "TokenFormerConfig":
        """Return a copy of this config with other numbers of parameter tokens, in the order of the property `tokens`.
        As in a model that has not been grown, each layer has one group with the default tau for its size."""
        qkv, out, ffn = ((TokenGroup(n, default_tau(self.norm_activation, n)),) for n in tokens)
        return replace(self, qkv=qkv, out=out, ffn=ffn)

    @property
    def block_weights(self) -> Mapping[str, Matrix]:
        qkv = {f"attention.qkv.{name}": self.qkv for name in ("query", "key", "value")}
        layers = {**qkv, "attention.output": self.out, "ffn": self.ffn}
        weights = {}
        for name, groups in layers.items():
            n, sizes = total(groups), tuple(group.n for group in groups)
            weights[f"{name}.keys"] = Matrix(self.d_model, n, groups=sizes)
            weights[f"{name}.values"] = Matrix(n, self.d_model, inputs_are_rows=True, groups=sizes)
        return weights

    @property
    def block_norm_flops(self) -> int:
        qkv, out, ffn = self.tokens
        return 3 * (3 * qkv + out + ffn)  # square, sum and scale of each score

    def block_activations(self, execution: Execution) -> int:
        d, width, again = self.d_model, execution.activation_bytes, execution.recompute == "pattention"
        scores = 0 if again else self._score_bytes(execution)
        if execution.compiled:
            # The block's input in float32; the rotated queries and keys; the attention output; the values, or, because
            # the values are a view of it, the whole output of joined projections; and the inputs of the qkv and ffn
            # layers and the output of the output layer, which kernels keep and activation checkpointing recomputes.
            # `python -m benchmarks partition` compares this number with torch's partitioner.
            values = 3 if _joins(execution) else 1
            others = 1 if width == 4 else 0 if again and not self._uses_kernels(execution) else 3
            return 4 * d + width * (3 + values + others) * d + scores
        # The inputs and outputs of two norms in float32; the values, the rotated queries and keys, and the attention
        # output.
        return 4 * 4 * d + width * 4 * d + scores

    def _score_bytes(self, execution: Execution) -> int:
        """Return the number of bytes per token that are kept for the scores and for the float32 scale of each group."""
        if execution.compiled and not self._uses_kernels(execution):
            values = 2  # the score and its weight
        else:
            values = 1 if self.norm_activation == "l2_norm_gelu" else 3
        scales = 3 * len(self.qkv) + len(self.out) + len(self.ffn)
        return execution.activation_bytes * values * sum(self._scores(execution)) + 4 * scales

    def keeps_casts(self, execution: Execution) -> bool:
        # In tiles, in compiled code, and where scores are recomputed, the backward pass casts the weights again.
        return not (self._in_tiles(execution) or execution.compiled or execution.recompute == "pattention")

    def layer_temporaries(self, execution: Execution) -> int:
        rows, again = execution.sequences * self.context, execution.recompute == "pattention"
        width, n = execution.activation_bytes, max(self._scores(execution))
        if self._in_tiles(execution):
            rows, values = score_rows(rows, n, execution.device, again), 3 if again else 2
        elif self._uses_kernels(execution):
            values = 4 if again else 3  # the gradients of scores and weights, and the weights again
        else:
            values = 5 if again else 2
        # Joined weights and their gradients have the precision of the forward pass; all gradients end in float32.
        per_weight = 4 + (2 * width if _joins(execution) else 0)
        return values * width * rows * n + per_weight * 2 * n * self.d_model

    def _scores(self, execution: Execution) -> tuple[int, int, int]:
        """Return three numbers of scores per token, including padding. The first is for the query, key and value
        projections together, the second for the output projection, and the third for the feed-forward layer."""
        joined = _joins(execution)
        qkv, out, ffn = (aligned(n, self.norm_activation) if joined else n for n in self.tokens)
        return 3 * qkv, out, ffn

    def _in_tiles(self, execution: Execution) -> bool:
        return self.norm_activation == "l2_norm_gelu" and not (execution.compiled or execution.kernels)

    def _uses_kernels(self, execution: Execution) -> bool:
        return self.norm_activation == "l2_norm_gelu" and execution.kernels

    def init_std(self, name: str) -> float:
        """Return the standard deviation of the initial values of a matrix. It is 0.02 for embeddings and keys
        (`init_method: normal`), and `residual_std` for values, as in the official GPU configs. With `scaled`, the
        standard deviation of keys is 0.02 at d_model = 768 and larger in narrower models, where 0.02 is small relative
        to the learning rates."""
        if name.endswith(".values"):
            return self.residual_std
        if name.endswith(".keys") and self.init == "scaled":
            return 0.02 * math.sqrt(768 / self.d_model)
        return 0.02

    @property
    def shape(self) -> tuple[str, str]:
        return "q/out/ffn", "/".join(map(str, self.tokens))

    @property
    def details(self) -> str:
        qkv, out, ffn = self.tokens
        return f"{qkv} parameter tokens for each of query, key and value, {out} for output, {ffn} for feed-forward"


def _joins(execution: Execution) -> bool:
    """Return True if the Pattention layers are computed by `joined_pattention`, which pads and joins their weights."""
    return execution.kernels or (execution.compiled and execution.activation_bytes == 2)


def number_of_groups(config: ModelConfig) -> int:
    """Return the number of groups of parameter tokens in each layer. Return 1 if the model has no parameter tokens, or
    if the number of groups differs between layers, because it is then unknown which groups were added by the same
    growth."""
    if not isinstance(config, TokenFormerConfig):
        return 1
    numbers = {len(config.qkv), len(config.out), len(config.ffn)}
    return numbers.pop() if len(numbers) == 1 else 1


def with_first_groups(config: ModelConfig, count: int) -> TokenFormerConfig:
    """Return the config with only the first `count` groups of each layer. `count` must be from 1 to
    `number_of_groups(config)`."""
    assert isinstance(config, TokenFormerConfig)
    return replace(config, qkv=config.qkv[:count], out=config.out[:count], ffn=config.ffn[:count])
