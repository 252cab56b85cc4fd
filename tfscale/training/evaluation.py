"""Held-out loss on a fixed set of tokens."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tfscale.data.batches import heldout_batches
from tfscale.data.prepared import PreparedData
from tfscale.models.language_model import LanguageModel
from tfscale.training.device import Device
from tfscale.training.world import World

EVALUATION_TOKENS = 16_384
"""Tokens of one forward pass of an evaluation."""


@dataclass(frozen=True)
class Evaluation:
    """Loss over the held-out tokens, each token counting the same."""

    loss: float
    """Nats a token."""
    heldout_tokens: int
    heldout_bytes: float
    """UTF-8 bytes of text that those tokens stand for."""

    @property
    def perplexity(self) -> float:
        """exp(loss), a token."""
        return math.exp(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers."""
        return self.loss * self.heldout_tokens / self.heldout_bytes / math.log(2)


def evaluate(
    model: LanguageModel, data: PreparedData, tokens: int, device: Device, world: World, stop: Callable[[], bool]
) -> Evaluation | None:
    """Evaluates on the first `tokens` tokens of the held-out split, the ranks sharing the batches.

    Returns:
        None if `stop` said so in the middle, on any rank.
    """
    context = model.config.context
    batches = heldout_batches(data.heldout, context, tokens, max(1, EVALUATION_TOKENS // context))
    total, count = 0.0, 0.0
    with torch.inference_mode(), device.autocast():
        for number, (inputs, targets) in enumerate(batches):
            if number % world.size == 0 and world.any(stop())[0]:
                return None
            if number % world.size == world.rank:
                inputs, targets = inputs.to(device.kind), targets.to(device.kind)
                total += model.loss(inputs, targets, reduction="sum").double().item()
                count += targets.numel()
    total, count = world.sum(total, count)
    return Evaluation(total / count, int(count), count * data.heldout_bytes_per_token)
