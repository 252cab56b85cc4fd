"""AdamW over a model, the norm of its gradients, and its moments as named tensors."""

import math

import torch
from torch import Tensor, nn

from tfscale.models.language_model import LanguageModel
from tfscale.stage.spec import OptimizerSpec
from tfscale.training.sharding import whole

CLIP_MARGIN = 1e-5
"""Where the norm is this much below the limit, torch's factor, limit / (norm + 1e-6), is one."""


def build_optimizer(model: LanguageModel, spec: OptimizerSpec) -> torch.optim.AdamW:
    """Fused AdamW; matrices decay, norms' gains and biases do not."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), eps=spec.eps, fused=True)


def clip_gradients(model: nn.Module, limit: float) -> float:
    """Scales gradients down to a norm of `limit` where theirs is more, and finite. A collective call.

    Returns:
        Their norm before, over all ranks. Waits for the device.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    value = float(whole(norm).item())
    # torch would multiply all gradients even where the factor is one.
    if math.isfinite(value) and value > limit - CLIP_MARGIN:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm, foreach=True)
    return value


def moments(model: LanguageModel, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """`exp_avg/<name>` and `exp_avg_sq/<name>` of every weight; empty before the first step."""
    state = optimizer.state
    return {
        f"{moment}/{name}": state[parameter][moment]
        for name, parameter in model.named_parameters()
        if parameter in state
        for moment in ("exp_avg", "exp_avg_sq")
    }


def start_moments(model: LanguageModel, optimizer: torch.optim.AdamW, step: int) -> None:
    """Makes room for moments that are about to be read, `step` updates old."""
    for parameter in model.parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
