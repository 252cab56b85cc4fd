"""Optimizer for all weights of a model, and gradient clipping."""

import math

import torch
from torch import Tensor, nn

from tfscale.models.config import ModelConfig
from tfscale.optimizers.base import Optimizer
from tfscale.optimizers.sharded import whole

CLIP_MARGIN = 1e-5
"""Margin below the clipping limit. For smaller gradient norms, torch clamps the clipping factor, limit / (norm + 1e-6),
to 1."""


class ModelOptimizer:
    """Set of torch optimizers that together update all weights of a model.

    Args:
        config: config of the model.
        one_per_weight: True to build a separate optimizer for each weight, which allows updates of single weights.
    """

    def __init__(
        self, model: nn.Module, settings: Optimizer, config: ModelConfig, one_per_weight: bool = False
    ) -> None:
        self._settings = settings
        self._weights = dict(model.named_parameters())
        together = [{name: weight} for name, weight in self._weights.items()] if one_per_weight else [self._weights]
        self._parts = [part for weights in together for part in settings.build(weights, config)]
        groups = [(part, group) for part in self._parts for group in part.param_groups]
        self._multiples = [(group, group["lr"] / settings.lr) for _, group in groups]
        self._part_of = {weight: part for part, group in groups for weight in group["params"]}
        self._group_of = {weight: group for _, group in groups for weight in group["params"]}

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the next update."""
        for group, multiple in self._multiples:
            group["lr"] = multiple * rate

    def decay(self, weight: Tensor) -> float:
        """Return the fraction of a weight that weight decay removes in an update."""
        group = self._group_of[weight]
        return float(group["lr"] * group.get("weight_decay", 0.0))

    def freeze(self, weight: Tensor, rows: int) -> None:
        """Exclude the first rows of a weight from the next update of the others (`Optimizer.freeze`)."""
        self._settings.freeze(self._part_of[weight], weight, rows)

    def step(self, weight: Tensor | None = None) -> None:
        """Update all weights, or only `weight`, which requires `one_per_weight`."""
        for part in self._parts if weight is None else [self._part_of[weight]]:
            part.step()

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Return the slots of all weights by name, `<slot>/<weight>`. The dictionary is empty before the first
        update."""
        return {
            f"{slot.name}/{name}": self._part_of[weight].state[weight][slot.name]
            for name, weight in self._weights.items()
            if weight in self._part_of[weight].state
            for slot in self._settings.slots(name, weight.dim())
        }

    def reset(self, updates: int) -> None:
        """Discard all slots. If `updates` is not 0, allocate zero-filled slots for that number of updates; the caller
        fills the tensors that `state` returns."""
        for part in self._parts:
            part.state.clear()
        for name, weight in self._weights.items() if updates else ():
            self._part_of[weight].state[weight] = self._settings.first_state(name, weight, updates)


def clip_gradients(model: nn.Module, limit: float) -> float:
    """Scale the gradients to a norm of `limit` if their norm is larger and finite. This is a collective call that
    synchronizes with the device.

    Returns:
        The gradient norm before clipping, over all ranks.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    value = float(whole(norm).item())
    # torch would multiply all gradients even if the factor were one.
    if math.isfinite(value) and value > limit - CLIP_MARGIN:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm, foreach=True)
    return value
