"""Comparison of a parent and its child: the same validation tokens go through both."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tfscale import checkpoint
from tfscale.models.counts import parameters

FLOAT64_PARAMETERS = 100_000_000
"""Models up to this size are compared in float64, larger ones in float32, to save memory."""


class NotPreserved(Exception):
    """A growth that should leave the logits as they were has changed them."""


@dataclass(frozen=True)
class Comparison:
    """A parent and its child on the same tokens."""

    loss_before: float
    loss_after: float
    """Mean loss in nats per token."""
    max_logit_difference: float
    tolerance: float
    """Largest difference that rounding explains, for logits of the parent's size and the precision used."""
    precision: str
    tokens: int


@torch.inference_mode()
def compare(parent: Path, child: Path, inputs: Tensor, targets: Tensor, rounded: bool = False) -> Comparison:
    """Run both checkpoints, one after the other, on `inputs` and `targets` [batch, context].

    Args:
        rounded: True if the child's weights are fractions of its parent's, which float32 had to round.
    """
    config, _ = checkpoint.read_state(child)
    dtype = torch.float64 if parameters(config) <= FLOAT64_PARAMETERS else torch.float32
    before, after = _logits(parent, inputs, dtype), _logits(child, inputs, dtype)
    scale = before.abs().max().item()
    return Comparison(
        loss_before=_loss(before, targets),
        loss_after=_loss(after, targets),
        max_logit_difference=(after - before).abs().max().item(),
        # Summing n products in another order moves a value by some hundreds of its last places.
        tolerance=max(1e4 * torch.finfo(dtype).eps, 1e2 * torch.finfo(torch.float32).eps * rounded) * max(scale, 1.0),
        precision=str(dtype).removeprefix("torch."),
        tokens=targets.numel(),
    )


def _logits(folder: Path, inputs: Tensor, dtype: torch.dtype) -> Tensor:
    logits: Tensor = checkpoint.load_model(folder).to(dtype)(inputs)
    return logits


def _loss(logits: Tensor, targets: Tensor) -> float:
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()
