"""Sampling from a model."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tfscale.models.language_model import LanguageModel


@torch.inference_mode()
def generate(
    model: LanguageModel, tokens: Sequence[int], count: int, temperature: float, top_k: int, seed: int
) -> Iterator[int]:
    """Draws `count` tokens after `tokens`, one at a time; the model sees the last `context` tokens.

    Args:
        temperature: 0 takes the likeliest token.
        top_k: draws among the k likeliest tokens; 0 among all.
    """
    random = torch.Generator().manual_seed(seed)
    seen = list(tokens)
    for _ in range(count):
        window = torch.tensor([seen[-model.config.context :]])
        token = _draw(model(window)[0, -1].float(), temperature, top_k, random)
        seen.append(token)
        yield token


def _draw(logits: Tensor, temperature: float, top_k: int, random: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    if top_k:
        threshold = logits.topk(min(top_k, len(logits))).values[-1]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    return int(torch.multinomial(torch.softmax(logits / temperature, dim=-1), 1, generator=random))
