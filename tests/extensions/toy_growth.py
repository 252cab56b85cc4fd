"""Growth operator that starts new keys at the mean of the old ones and new values at zero, with a separate norm."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.growth.operator import GROWTHS, Growth
from tfscale.models.config import ModelConfig
from tfscale.models.parameter_tokens import TokenGroup, default_tau, layer_of, total
from tfscale.models.tokenformer import TokenFormerConfig

if TYPE_CHECKING:
    from torch import Tensor


@GROWTHS.register("mean_keys")
@dataclass(frozen=True)
class MeanKeys(Growth):
    scale: float = 1.0

    kind: ClassVar[str] = "mean_keys"

    def grown_config(self, parent: ModelConfig, target: ModelConfig) -> ModelConfig:
        assert isinstance(parent, TokenFormerConfig)
        assert isinstance(target, TokenFormerConfig)
        grown: dict[str, Any] = {}
        for name, wanted in zip(("qkv", "out", "ffn"), target.tokens, strict=True):
            groups = getattr(parent, name)
            if added := wanted - total(groups):
                groups = (*groups, TokenGroup(added, default_tau(parent.norm_activation, added)))
            grown[name] = groups
        return replace(parent, **grown)

    def preserves(self, parent: ModelConfig, child: ModelConfig) -> bool:
        return True

    def grow_tensor(
        self, name: str, degree: int, old: "Tensor", parent: ModelConfig, child: ModelConfig, seed: int
    ) -> "Tensor":
        layer = layer_of(name)
        if layer is None:
            return old
        rows = old.new_zeros((total(getattr(child, layer)), old.shape[1]))
        rows[: len(old)] = old
        if degree == 0 and name.endswith(".keys"):
            rows[len(old) :] = self.scale * old.mean(0)
        return rows
