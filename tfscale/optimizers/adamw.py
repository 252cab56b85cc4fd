"""The AdamW optimizer (arXiv 1711.05101)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tfscale.models.config import ModelConfig
from tfscale.models.counts import parameters
from tfscale.models.matrices import is_block_matrix
from tfscale.optimizers.base import Optimizer, Slot
from tfscale.ranges import Momentum, NonNegative

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ELEMENTWISE_FLOPS = 14
"""Number of FLOPs per weight in an AdamW update. The two running means take 7, the bias correction and the ratio of the
means take 4, and the weight decay and the step take 3."""


@dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Settings of fused AdamW. Weight decay applies to matrices, but not to the gains and biases of norms, as in GPT-2
    and in the released configs of arXiv 2410.23168."""

    beta1: Momentum
    beta2: Momentum
    eps: NonNegative
    weight_decay: NonNegative

    name: ClassVar[str] = "adamw"
    row_rates: ClassVar[bool] = True
    bias_corrected: ClassVar[bool] = True

    def build(self, weights: Mapping[str, "Tensor"], model: ModelConfig) -> Sequence["torch.optim.Optimizer"]:
        from tfscale.optimizers.eager import EagerAdamW

        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, weight in weights.items():
            multiple, decay = self.embedding_ratio, self.weight_decay if weight.dim() >= 2 else 0.0
            if is_block_matrix(name, weight.dim()):
                multiple = rate_multiple(name, model)
                decay /= multiple  # weights decay by lr * weight_decay
            groups.setdefault((multiple, decay), []).append(weight)
        parts = [
            {"params": part, "lr": self.lr * rate, "weight_decay": decay} for (rate, decay), part in groups.items()
        ]
        return [EagerAdamW(parts, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)]

    def slots(self, name: str, dimensions: int) -> tuple[Slot, ...]:
        return Slot("exp_avg", 1), Slot("exp_avg_sq", 2)

    def bytes_per_weight(self, model: ModelConfig) -> float:
        return 8.0

    def update_flops(self, model: ModelConfig) -> int:
        return ELEMENTWISE_FLOPS * parameters(model)

    def first_state(self, name: str, weight: "Tensor", step: int) -> dict[str, "Tensor"]:
        import torch

        return super().first_state(name, weight, step) | {"step": torch.tensor(float(step), device=weight.device)}

    def new_row_correction(self, steps: int, updates: int, empty: Sequence[int]) -> float:
        correction = 1.0
        if 1 in empty:
            correction *= (1 - self.beta1**updates) / (1 - self.beta1**steps)
        if 2 in empty:
            correction *= ((1 - self.beta2**steps) / (1 - self.beta2**updates)) ** 0.5
        return correction


def rate_multiple(name: str, model: ModelConfig) -> float:
    """Return the learning rate of a matrix in a block as a multiple of the optimizer's learning rate. With the
    parametrization by fan-in, the multiple is base_fan_in / fan-in, because an update changes each weight by about the
    learning rate, and each output sums the changes of as many weights as the fan-in. With the standard parametrization,
    the multiple is 1."""
    return 1.0 if model.base_fan_in is None else model.base_fan_in / model.matrix(name).fan_in
