"""Optimizer that uses SGD with momentum for matrices and AdamW for all other weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tfscale.models.config import ModelConfig
from tfscale.models.counts import parameters
from tfscale.optimizers.adamw import AdamW
from tfscale.optimizers.base import OPTIMIZERS, Slot
from tfscale.ranges import Momentum


@OPTIMIZERS.register("mixed")
@dataclass(frozen=True, kw_only=True)
class Mixed(AdamW):
    momentum: Momentum = 0.9

    name: ClassVar[str] = "mixed"
    row_rates: ClassVar[bool] = False

    def build(self, weights: Mapping[str, Tensor], model: ModelConfig) -> Sequence[torch.optim.Optimizer]:
        matrices = [weight for name, weight in weights.items() if self._is_matrix(name, weight.dim())]
        others = {name: weight for name, weight in weights.items() if not self._is_matrix(name, weight.dim())}
        built = [torch.optim.SGD(matrices, lr=self.lr, momentum=self.momentum)] if matrices else []
        return [*built, *super().build(others, model)] if others else built

    def slots(self, name: str, dimensions: int) -> tuple[Slot, ...]:
        return (Slot("momentum_buffer", 1),) if self._is_matrix(name, dimensions) else super().slots(name, dimensions)

    def bytes_per_weight(self, model: ModelConfig) -> float:
        matrices = model.n_layer * model.block_matrices
        return 8.0 - 4.0 * matrices / parameters(model)

    def first_state(self, name: str, weight: Tensor, step: int) -> dict[str, Tensor]:
        state = super().first_state(name, weight, step)
        return {"momentum_buffer": state["momentum_buffer"]} if self._is_matrix(name, weight.dim()) else state

    def _is_matrix(self, name: str, dimensions: int) -> bool:
        return dimensions == 2 and name != "embedding"
