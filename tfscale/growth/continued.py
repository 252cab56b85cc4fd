"""Continued training of an unchanged model of any family, with the optimizer state and the data of the parent stage."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tfscale.growth.operator import Growth
from tfscale.models.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Continued(Growth):
    """Growth operator that changes neither the model nor the optimizer state."""

    kind: ClassVar[str] = "continued"

    def grown_config(self, parent: ModelConfig, target: ModelConfig) -> ModelConfig:
        if target != parent:
            raise ValueError("the model must not change if training continues")
        return parent

    def preserves(self, parent: ModelConfig, child: ModelConfig) -> bool:
        return True

    def grow_tensor(
        self, name: str, degree: int, old: "Tensor", parent: ModelConfig, child: ModelConfig, seed: int
    ) -> "Tensor":
        return old


CONTINUED = Continued("none", lr="continue", data="continue")
"""Settings for continued training with the last learning rate, optimizer state and data position of the parent
stage."""
