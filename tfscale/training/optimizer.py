"""Optimizer for all weights of a model, and gradient clipping."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tfscale.models.config import ModelConfig
from tfscale.optimizers.base import Optimizer
from tfscale.optimizers.sharded import local, whole

CLIP_MARGIN = 1e-5
"""Margin below the clipping limit. If the gradient norm is below the limit by at least this margin, clipping is
omitted, because torch would clamp its factor, limit / (norm + 1e-6), to 1."""


class ModelOptimizer:
    """Optimizer of all weights of a model, composed of one or more PyTorch optimizers. With `one_per_weight`, each
    weight has its own PyTorch optimizer, so that each weight can be updated separately."""

    def __init__(
        self, model: nn.Module, settings: Optimizer, config: ModelConfig, one_per_weight: bool = False
    ) -> None:
        self._settings = settings
        self._weights = dict(model.named_parameters())
        together = [{name: weight} for name, weight in self._weights.items()] if one_per_weight else [self._weights]
        self._parts = [part for weights in together for part in settings.build(weights, config)]
        groups = [(part, group) for part in self._parts for group in part.param_groups]
        self._multiples = [(group, group["lr"] / settings.lr) for _, group in groups]
        self.skips = all(getattr(part, "_step_supports_amp_scaling", False) for part in self._parts)
        """True if the device can decide whether to skip an update (the argument `skipped` of `step`)."""
        self._part_of = {weight: part for part, group in groups for weight in group["params"]}
        self._group_of = {weight: group for _, group in groups for weight in group["params"]}

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the next update. Parameter groups keep their ratio to this learning rate."""
        for group, multiple in self._multiples:
            group["lr"] = multiple * rate

    def decay(self, weight: Tensor) -> float:
        """Return the fraction of a weight that weight decay removes in an update, at the current learning rate."""
        group = self._group_of[weight]
        return float(group["lr"] * group.get("weight_decay", 0.0))

    def freeze(self, weight: Tensor, rows: int) -> None:
        """Exclude the first `rows` rows of a weight from the computation of later updates of its other rows, until this
        method is called again (`Optimizer.freeze`)."""
        self._settings.freeze(self._part_of[weight], weight, rows)

    def step(self, weight: Tensor | None = None, skipped: Tensor | None = None) -> None:
        """Update the weights.

        Args:
            weight: the only weight to update; requires `one_per_weight`. None: all weights are updated.
            skipped: boolean scalar on the device, which the host does not read. If the scalar is True, the device
                changes nothing. Requires `skips`.
        """
        for part in self._parts if weight is None else [self._part_of[weight]]:
            if skipped is not None:
                part.found_inf = skipped.float()  # type: ignore[attr-defined]  # as torch.amp.GradScaler sets it
            part.step()

    def zero_grad(self) -> None:
        """Discard the gradients of all weights."""
        for weight in self._weights.values():
            weight.grad = None

    def state(self) -> dict[str, Tensor]:
        """Return the optimizer state of all weights: each slot of a weight, such as `exp_avg`, as a tensor with the
        name `<slot>/<weight>`. The dictionary is empty until an update or `reset` has allocated the slots."""
        return {
            f"{slot.name}/{name}": self._part_of[weight].state[weight][slot.name]
            for name, weight in self._weights.items()
            if weight in self._part_of[weight].state
            for slot in self._settings.slots(name, weight.dim())
        }

    def reset(self, updates: int) -> None:
        """Discard the optimizer state. If `updates`, the number of updates so far, is not 0, allocate new slots (state
        tensors); the caller then overwrites the tensors that `state` returns."""
        for part in self._parts:
            part.state.clear()
        for name, weight in self._weights.items() if updates else ():
            self._part_of[weight].state[weight] = self._settings.first_state(name, weight, updates)


class GradientNorms(NamedTuple):
    """Norms of the gradients of a step. A CUDA device may still be computing the norms."""

    total: Tensor
    """Norm of all gradients over all ranks, as a scalar tensor."""
    each: Tensor
    """Norm of each weight's gradient, [weights]. If the weights are sharded, only this rank's shard of each gradient is
    included."""
    names: tuple[str, ...]
    """Names of the weights, in the order of `each`."""


def gradient_norms(weights: Mapping[str, Tensor]) -> GradientNorms:
    """Return the norms of the gradients of the given weights. This is a collective call."""
    gradients = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    each = torch.stack(torch._foreach_norm(list(gradients.values())))
    return GradientNorms(whole(torch.linalg.vector_norm(each)), local(each), tuple(gradients))


def clip_gradients(weights: Mapping[str, Tensor], limit: float, norm: Tensor, read: bool = True) -> None:
    """Scale the gradients to a norm of `limit` if `norm`, the norm of all gradients over all ranks, is larger. If
    `read` is False, the gradients are always multiplied by a factor that the device computes, so that the host does not
    wait for the norm."""
    # torch multiplies all gradients even if the factor is one.
    if limit < math.inf and (not read or norm > limit - CLIP_MARGIN):
        torch.nn.utils.clip_grads_with_norm_(weights.values(), limit, norm, foreach=True)
