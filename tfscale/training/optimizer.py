"""The optimizer of a model's weights, and the norm of their gradients."""

import math

import torch
from torch import Tensor, nn

from tfscale.models.config import ModelConfig
from tfscale.optimizers.base import Optimizer
from tfscale.optimizers.sharded import whole

CLIP_MARGIN = 1e-5
"""Distance of the gradient norm below the limit at which torch's clipping factor, limit / (norm + 1e-6), is clamped to
one."""


class ModelOptimizer:
    """Set of torch optimizers that update a model; each of them updates some of its weights.

    Args:
        config: config of the model.
        one_per_weight: True to build a separate optimizer for each weight, so that weights can be updated one at a
            time.
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
        """Update all weights, or only `weight`, which then needs optimizers of its own (`one_per_weight`)."""
        for part in self._parts if weight is None else [self._part_of[weight]]:
            part.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Return the slots of all weights under the names `<slot>/<weight>`; there are none before the first update."""
        return {
            f"{slot.name}/{name}": self._part_of[weight].state[weight][slot.name]
            for name, weight in self._weights.items()
            if weight in self._part_of[weight].state
            for slot in self._settings.slots(name, weight.dim())
        }

    def reset(self, updates: int) -> None:
        """Drop all slots. Unless `updates` is 0, allocate new ones as after that many updates; `state` returns them to
        be filled."""
        for part in self._parts:
            part.state.clear()
        for name, weight in self._weights.items() if updates else ():
            self._part_of[weight].state[weight] = self._settings.first_state(name, weight, updates)


def clip_gradients(model: nn.Module, limit: float) -> float:
    """Scale gradients down to a norm of `limit` if their norm is larger and finite. This is a collective call, and it
    waits for the device.

    Returns:
        The norm before clipping, over all ranks.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    value = float(whole(norm).item())
    # torch would multiply all gradients even if the factor were one.
    if math.isfinite(value) and value > limit - CLIP_MARGIN:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm, foreach=True)
    return value
