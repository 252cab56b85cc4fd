"""The compute-optimal Transformer for a budget, by the Chinchilla rule of thumb (arXiv 2203.15556)."""

import math
from collections.abc import Sequence
from dataclasses import replace

from tfscale.models.counts import flops, nearest, parameters
from tfscale.models.transformer import TransformerConfig

TOKENS_PER_PARAMETER = 20
WIDEST_HEAD = 2**16


def compute_optimal(compute: int, models: Sequence[TransformerConfig]) -> tuple[int, TransformerConfig]:
    """Return the Transformer whose training on 20 tokens per parameter, including the embedding, costs about `compute`.

    The result is one of `models`, widened: the numbers of layers and heads are kept, d_model is a multiple of n_head,
    and d_ff keeps its ratio to d_model. The model whose number of parameters changes least is used.

    Args:
        compute: budget in model FLOPs.

    Returns:
        The index of the original model in `models`, and the widened model.
    """
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
