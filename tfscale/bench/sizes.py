"""Model sizes and batch shapes for benchmarks."""

from dataclasses import dataclass
from typing import Literal

from tfscale.models.parameter_tokens import TokenGroup, default_tau
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.models.transformer import TransformerConfig

Family = Literal["tokenformer", "transformer"]


def tokenformer(
    n: int, n_layer: int = 12, d: int = 768, heads: int = 12, context: int = 1024, vocabulary: int = 50_304
) -> TokenFormerConfig:
    """Return the config of a TokenFormer with the proportions of the paper: `n` parameter tokens per attention
    projection and 4 n in the feed-forward layer."""
    small, large = ((TokenGroup(count, default_tau("l2_norm_gelu", count)),) for count in (n, 4 * n))
    return TokenFormerConfig(n_layer, d, heads, vocabulary, context, small, small, large)


def transformer(
    n_layer: int = 12, d: int = 768, heads: int = 12, context: int = 1024, vocabulary: int = 50_304
) -> TransformerConfig:
    """Return the config of a Transformer with the proportions of GPT-2."""
    return TransformerConfig(n_layer, d, heads, vocabulary, context, 4 * d)


@dataclass(frozen=True)
class Size:
    """Configs of a TokenFormer and a Transformer of about the same size, and the shape [sequences, time] of their
    batches."""

    name: str
    tokenformer: TokenFormerConfig
    transformer: TransformerConfig
    sequences: int
    time: int
    threads: int | None = None
    """Number of CPU threads for this size, or None to use the number in the settings."""

    @property
    def tokens(self) -> int:
        """Number of tokens per batch."""
        return self.sequences * self.time


TINY_1 = Size("tiny n=24", tokenformer(24, 4, 64, 4, 128, 2048), transformer(4, 51, 3, 128, 2048), 32, 128)
TINY_4 = Size("tiny n=360", tokenformer(360, 4, 64, 4, 128, 2048), transformer(4, 164, 4, 128, 2048), 32, 128)
"""Size of the last stage of a chain with model width 64 and 4 layers. `TINY_1` is the size of the first stage."""
PROGRESSIVE_1 = Size(
    "progressive_tiny 25K", tokenformer(16, 2, 32, 2, 64, 257), transformer(2, 27, 1, 64, 257), 8, 64, 1
)
PROGRESSIVE_4 = Size(
    "progressive_tiny 254K", tokenformer(240, 2, 32, 2, 64, 257), transformer(2, 96, 2, 64, 257), 8, 64, 1
)
"""Size of the last stage of conf/schedule/progressive_tiny.yaml, with one thread as in this schedule. `PROGRESSIVE_1`
is the size of the first stage."""
PAPER = {
    "124M": (tokenformer(576), transformer(12, 768, 12)),
    "354M": (tokenformer(2140), transformer(24, 1024, 16)),
    "757M": (tokenformer(4850), transformer(24, 1536, 16)),
    "1.4B": (tokenformer(8620), transformer(24, 2048, 16)),
}
"""Configs (TokenFormer, Transformer) of the stages of conf/schedule/progressive_1b4.yaml, by size."""
ON_CPU = (TINY_1, TINY_4, PROGRESSIVE_1, PROGRESSIVE_4, Size("124M", *PAPER["124M"], 4, 512))
ON_CUDA = tuple(
    Size(name, *PAPER[name], sequences, 1024)
    for name, sequences in (("124M", 32), ("354M", 16), ("757M", 8), ("1.4B", 4))
)
