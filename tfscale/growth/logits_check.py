"""Comparison of the logits of a parent stage and its child stage on the same validation tokens."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tfscale import checkpoint
from tfscale.models.counts import parameters

FLOAT64_PARAMETERS = 100_000_000
"""Maximum number of parameters of a model that is compared in float64. Larger models are compared in float32 to save
memory."""


class NotPreserved(Exception):
    """Error raised if a function-preserving growth has changed the logits."""


@dataclass(frozen=True)
class LogitsComparison:
    """Comparison of the logits and losses of a parent stage and its child stage on the same tokens."""

    loss_before: float
    loss_after: float
    """Mean loss in nats per token after the growth; `loss_before` is the mean loss before the growth."""
    max_logit_difference: float
    tolerance: float
    """Largest difference of logits that rounding can explain, given the magnitude of the parent's logits and the
    precision."""
    precision: str
    tokens: int


@torch.inference_mode()
def compare_logits(
    parent: Path, child: Path, inputs: Tensor, targets: Tensor, rounded: bool = False
) -> LogitsComparison:
    """Return a comparison of the logits and losses of two checkpoints on `inputs` and `targets` [batch, context].

    Args:
        rounded: True if weights of the child are fractions of the parent's weights, rounded to float32. This increases
            the tolerance.
    """
    config, _ = checkpoint.read_state(child)
    dtype = torch.float64 if parameters(config) <= FLOAT64_PARAMETERS else torch.float32
    before, after = _logits(parent, inputs, dtype), _logits(child, inputs, dtype)
    scale = before.abs().max().item()
    return LogitsComparison(
        loss_before=_loss(before, targets),
        loss_after=_loss(after, targets),
        max_logit_difference=(after - before).abs().max().item(),
        # Summing n products in another order changes a value by a few hundred units in the last place.
        tolerance=max(1e4 * torch.finfo(dtype).eps, 1e2 * torch.finfo(torch.float32).eps * rounded) * max(scale, 1.0),
        precision=str(dtype).removeprefix("torch."),
        tokens=targets.numel(),
    )


def _logits(folder: Path, inputs: Tensor, dtype: torch.dtype) -> Tensor:
    logits: Tensor = checkpoint.load_model(folder).to(dtype)(inputs)
    return logits


def _loss(logits: Tensor, targets: Tensor) -> float:
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()
