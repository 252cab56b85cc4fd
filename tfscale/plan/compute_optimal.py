"""The compute-optimal Transformer of a budget, by the rule of thumb of Chinchilla (arXiv 2203.15556)."""

import math
from collections.abc import Sequence
from dataclasses import replace

from tfscale.models.counts import flops, parameters
from tfscale.models.nearest import nearest
from tfscale.models.transformer import TransformerConfig

TOKENS_A_PARAMETER = 20
WIDEST_HEAD = 2**16


def compute_optimal(compute: int, models: Sequence[TransformerConfig]) -> tuple[int, TransformerConfig]:
    """The Transformer whose training on 20 tokens a parameter (embedding included) takes `compute` FLOPs most nearly.

    Its shape is a widening of one of `models`: layers and heads stay, d_model is a multiple of the heads and d_ff keeps
    its ratio to it. Of all models the one is taken whose number of parameters has to change least.

    Returns:
        The index of that model, and the widened one.
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
        return TOKENS_A_PARAMETER * parameters(of(head)) * flops(of(head)).training

    return of(nearest(cost, compute, WIDEST_HEAD))
