"""The AdamW optimizer (arXiv 1711.05101)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tfscale.models.config import ModelConfig
from tfscale.optimizers.base import Optimizer, Slot
from tfscale.ranges import Momentum, NonNegative

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Settings of fused AdamW. Weight decay applies to matrices, but not to the gains and biases of norms, as in GPT-2
    and in the released configs of arXiv 2410.23168."""

    beta1: Momentum
    beta2: Momentum
    eps: NonNegative
    weight_decay: NonNegative

    name: ClassVar[str] = "adamw"
    row_wise: ClassVar[bool] = True

    def build(self, weights: Mapping[str, "Tensor"]) -> Sequence["torch.optim.Optimizer"]:
        import torch

        matrices = [weight for weight in weights.values() if weight.dim() >= 2]
        vectors = [weight for weight in weights.values() if weight.dim() < 2]
        decays = ((matrices, self.weight_decay), (vectors, 0.0))
        groups = [{"params": part, "weight_decay": decay} for part, decay in decays if part]
        return [torch.optim.AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)]

    def slots(self, name: str, dimensions: int) -> tuple[Slot, ...]:
        return Slot("exp_avg", 1), Slot("exp_avg_sq", 2)

    def bytes_per_weight(self, model: ModelConfig) -> float:
        return 8.0

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
