"""Groups of parameter tokens in a Pattention layer. The scores of each group are normalised separately."""

import math
from dataclasses import dataclass
from typing import Literal

NormActivation = Literal["l2_norm_gelu", "l1_norm_gelu", "gelu_l2_norm", "softmax"]
"""Function Theta of Pattention. `l2_norm_gelu` is the paper's Eq. 16 (norm, then GELU). `l1_norm_gelu` (L1 norm, then
GELU) and `softmax` (exp, then L1 norm) are the variants in the paper's Table 4. `gelu_l2_norm` (GELU, then L2 norm) is
an option of the official code."""


def default_tau(norm_activation: str, n: int) -> float:
    """Return the factor that makes the normalised scores of `n` parameter tokens of order one. This factor is sqrt(n)
    for an L2 norm (Eq. 16), and n for an L1 norm (as for `softmax` in the official code)."""
    return math.sqrt(n) if "l2" in norm_activation else float(n)


@dataclass(frozen=True)
class TokenGroup:
    """Group of `n` parameter tokens that share one norm. Their normalised scores are scaled by `tau`, which is stored
    rather than recomputed from `n`, so that a layer can keep its `tau`, and therefore its output, when parameter tokens
    are added."""

    n: int
    tau: float


Groups = tuple[TokenGroup, ...]


def total(groups: Groups) -> int:
    """Return the total number of parameter tokens in `groups`, the groups of a layer."""
    return sum(group.n for group in groups)


ALIGNMENT = 64
"""Alignment of weights for matrix products on a GPU. Weights are padded with zero rows until the number of rows is a
multiple of this constant. The size of a row of scores in bf16 is then a multiple of 128 bytes."""


def aligned(n: int, norm_activation: NormActivation) -> int:
    """Return the number of rows of a weight with `n` parameter tokens after padding with zero rows. With softmax,
    weights are not padded, because the zero rows would change the output."""
    return n if norm_activation == "softmax" else -(-n // ALIGNMENT) * ALIGNMENT


def layer_of(name: str) -> Literal["qkv", "out", "ffn"] | None:
    """Return the kind of layer to which the parameter tokens in the weight called `name` belong, or None if the weight
    contains no parameter tokens."""
    if not name.endswith((".keys", ".values")):
        return None
    if ".ffn." in name:
        return "ffn"
    return "out" if ".output." in name else "qkv"
