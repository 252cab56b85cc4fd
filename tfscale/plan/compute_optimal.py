"""The compute-optimal Transformer for a budget, by the Chinchilla rule of thumb (arXiv 2203.15556)."""

import math
from collections.abc import Sequence
from dataclasses import replace

from tfscale.models.counts import flops, nearest, parameters
from tfscale.models.transformer import TransformerConfig

TOKENS_PER_PARAMETER = 20
WIDEST_HEAD = 2**16


def compute_optimal(compute: int, models: Sequence[TransformerConfig]) -> tuple[int, TransformerConfig]:
    """Return the config of a compute-optimal Transformer, preceded by the index of the model in `models` from which it
    is derived. A model is made wider or narrower until training on 20 tokens per parameter, including the embedding,
    costs about `compute` model FLOPs. The numbers of layers and heads and the ratio of d_ff to d_model are kept. The
    model in `models` whose number of parameters changes least is used."""
    widened = [_widened(model, compute) for model in models]
    changes = [abs(math.log(parameters(w) / parameters(m))) for w, m in zip(widened, models, strict=True)]
    least = changes.index(min(changes))
    return least, widened[least]


def _widened(model: TransformerConfig, compute: int) -> TransformerConfig:
    def of(head: int) -> TransformerConfig:
        width = head * model.n_head
        return replace(model, d_model=width, d_ff=max(1, round(width * model.d_ff / model.d_model)))

    def cost(head: int) -> int:
        return TOKENS_PER_PARAMETER * parameters(of(head)) * flops(of(head)).training

    return of(nearest(cost, compute, WIDEST_HEAD))
