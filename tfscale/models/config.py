"""What a model is, as frozen values. The module, its counts and its growth are all derived from these."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

NormActivation = Literal["l2_norm_gelu", "l1_norm_gelu", "gelu_l2_norm", "softmax"]
"""Theta of Pattention. `l2_norm_gelu` is the paper's Eq. 16 (norm, then GELU). `l1_norm_gelu` and `softmax`
(exp and L1) are the other rows of its Table 4; `gelu_l2_norm` is the order of the official code's other branch."""

Init = Literal["official", "scaled"]
"""How first weights are drawn (`tfscale.models.init`)."""


def default_tau(norm_activation: str, n: int) -> float:
    """The scale that keeps a normalised score at order one for `n` parameter tokens: sqrt(n) after an L2 norm
    (Eq. 16), n after an L1 norm (the official code's `softmax` branch)."""
    return math.sqrt(n) if "l2" in norm_activation else float(n)


@dataclass(frozen=True)
class TokenGroup:
    """`n` parameter tokens that share one norm, scaled by `tau` after it.

    tau is stored, not recomputed from n: a layer that keeps its tau can grow without changing what it computes.
    """

    n: int
    tau: float


Groups = tuple[TokenGroup, ...]


def layer_of(name: str) -> Literal["qkv", "out", "ffn"] | None:
    """Of which kind of layer the weight called `name` holds the parameter tokens; None: of none."""
    if not name.endswith((".keys", ".values")):
        return None
    if ".ffn." in name:
        return "ffn"
    return "out" if ".output." in name else "qkv"


def total(groups: Groups) -> int:
    """Parameter tokens in all groups of a layer."""
    return sum(group.n for group in groups)


@dataclass(frozen=True)
class TokenFormerConfig:
    """A TokenFormer language model (arXiv 2410.23168): every projection is a Pattention.

    qkv, out and ffn hold the parameter tokens of each of the query, key and value projections, of the attention's
    output projection, and of the feed-forward layer. Most models have one group a layer; growth by groups adds more.
    """

    n_layer: int
    d_model: int
    n_head: int
    vocab_size: int
    context: int
    qkv: Groups
    out: Groups
    ffn: Groups
    norm_activation: NormActivation = "l2_norm_gelu"
    rotary: float = 0.25  # fraction of the head dimensions that rotate; 0: no positions (the official TPU code)
    init: Init = "official"

    family = "tokenformer"

    def __post_init__(self) -> None:
        _check_common(self)
        if self.norm_activation not in get_args(NormActivation):
            raise ValueError(
                f"norm_activation={self.norm_activation!r}; allowed: {', '.join(get_args(NormActivation))}"
            )
        for name in ("qkv", "out", "ffn"):
            groups: Groups = getattr(self, name)
            if not groups or any(group.n < 1 or not group.tau > 0 for group in groups):
                raise ValueError(f"{name}={groups}: each group needs at least one parameter token and a tau above 0")

    @property
    def tokens(self) -> tuple[int, int, int]:
        """Parameter tokens of (each of q, k, v; output projection; feed-forward)."""
        return total(self.qkv), total(self.out), total(self.ffn)


@dataclass(frozen=True)
class TransformerConfig:
    """A GPT-2-like baseline in the paper's setting: rotary positions, no biases, GELU feed-forward, pre-norm."""

    n_layer: int
    d_model: int
    n_head: int
    vocab_size: int
    context: int
    d_ff: int
    rotary: float = 0.25
    init: Init = "official"

    family = "transformer"

    def __post_init__(self) -> None:
        _check_common(self)
        if self.d_ff < 1:
            raise ValueError(f"d_ff={self.d_ff}; must be at least 1")


ModelConfig = TokenFormerConfig | TransformerConfig


def _check_common(config: ModelConfig) -> None:
    for name in ("n_layer", "d_model", "n_head", "vocab_size", "context"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)}; must be at least 1")
    if config.d_model % config.n_head:
        raise ValueError(f"n_head={config.n_head} does not divide d_model={config.d_model}")
    if config.init not in get_args(Init):
        raise ValueError(f"init={config.init!r}; allowed: {', '.join(get_args(Init))}")
    if not 0 <= config.rotary <= 1:
        raise ValueError(f"rotary={config.rotary}; a fraction of the head dimensions, 0 to 1")


def rotary_dims(config: ModelConfig) -> int:
    """Head dimensions that rotate: the stated fraction, rounded down to an even number."""
    return int(config.d_model // config.n_head * config.rotary) // 2 * 2


def to_dict(config: ModelConfig) -> dict[str, Any]:
    """Plain values for JSON; `from_dict` reads them back."""
    values = {"family": config.family, **asdict(config)}
    if config.init == "official":
        del values["init"]  # as in files from before it was there
    return values


def from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """The config that `to_dict` wrote.

    Raises:
        ValueError: an unknown family.
        TypeError: a missing or unknown field.
    """
    fields = dict(values)
    family = fields.pop("family", None)
    if family == TransformerConfig.family:
        return TransformerConfig(**fields)
    if family == TokenFormerConfig.family:
        for name in ("qkv", "out", "ffn"):
            fields[name] = tuple(TokenGroup(**group) for group in fields[name])
        return TokenFormerConfig(**fields)
    raise ValueError(f"family={family!r}; allowed: {TokenFormerConfig.family}, {TransformerConfig.family}")
