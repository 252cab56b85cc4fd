"""Growth operator of Transformers in width or depth, which is the baseline for growth by parameter tokens."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, assert_never

from tfscale.faults import Fault
from tfscale.growth.operator import Growth
from tfscale.models.config import ModelConfig
from tfscale.models.counts import parameters
from tfscale.models.nearest import nearest
from tfscale.models.transformer import TransformerConfig

if TYPE_CHECKING:
    from torch import Tensor

MOST_COPIES = 2**16
MOST_DOUBLINGS = 24
_LAYER = re.compile(r"(?<=blocks\.)\d+(?=\.)")


@dataclass(frozen=True)
class TransformerGrowth(Growth):
    """Settings for the growth of a Transformer."""

    kind: ClassVar[str] = "transformer"

    method: Literal["net2net", "hypercloning", "g_stack"]
    """Growth method. `net2net`: adds heads and hidden units, each a copy of an old one whose outgoing weights are
    divided among the copies (arXiv 1511.05641). `hypercloning`: does so in doublings, with noise that cancels
    (arXiv 2409.12903). `g_stack`: stacks the layers several times, which changes the function (arXiv 2405.15319)."""
    noise: float = 0.0
    """Standard deviation of the noise that distinguishes copies, as a fraction of the weights' own. `net2net`: added to
    copies, which changes the function accordingly. `hypercloning`: added to all weights; sums to zero over the copies
    of an input, so the function is preserved. `g_stack`: must be 0, because copies are in different layers."""
    moments: Literal["carry", "drop"] = "drop"
    """Optimizer state of the child. `drop`: starts empty, as in the code of HyperCloning and G_stack. `carry`: each
    copy has the state of its original, scaled like its gradient."""

    def faults(self) -> Iterator[Fault | str]:
        yield from super().faults()
        if not 0 <= self.noise <= 10:
            rule = "must be a fraction of the weights' deviation, from 0 to 10"
            yield Fault("transformer_growth.noise", self.noise, rule, "0.01")
        if self.noise and self.method == "g_stack":
            rule = "must be 0 with method=g_stack, which has no copies side by side"
            yield Fault("transformer_growth.noise", self.noise, rule)

    @property
    def rounds(self) -> bool:
        return True

    @property
    def carries(self) -> bool:
        return self.moments == "carry"

    def grown_config(self, parent: ModelConfig, target: ModelConfig) -> TransformerConfig:
        if not isinstance(parent, TransformerConfig):
            raise ValueError(f"is of the family {parent.family}; growth={self.name} is for Transformers")
        return self.nearest_shape(parent, parameters(target))

    def nearest_shape(self, parent: TransformerConfig, wanted: int) -> TransformerConfig:
        """Return the shape whose number of parameters is nearest to `wanted` in ratio, among the parent's shape and all
        shapes that the method can grow it to.

        Width grows by whole heads, by any number with `net2net` and in doublings with `hypercloning`; the head size
        is kept, because rotary positions depend on it, and d_ff grows along with d_model. `g_stack` multiplies the
        layers.
        """

        def of(step: int) -> TransformerConfig:
            if self.method == "g_stack":
                return replace(parent, n_layer=parent.n_layer * step)
            if self.method == "hypercloning":
                heads = parent.n_head * 2 ** (step - 1)
            elif self.method == "net2net":
                heads = parent.n_head + step - 1
            else:
                assert_never(self.method)
            d_model, d_ff = (width * heads // parent.n_head for width in (parent.d_model, parent.d_ff))
            return replace(parent, n_head=heads, d_model=d_model, d_ff=d_ff)

        most = MOST_DOUBLINGS if self.method == "hypercloning" else MOST_COPIES
        return of(nearest(lambda step: parameters(of(step)), wanted, most))

    def preserves(self, parent: ModelConfig, child: ModelConfig) -> bool:
        """Return whether this growth leaves every logit unchanged, up to rounding.

        LayerNorm sees the same mean and variance only if every dimension is copied equally often, so the old d_model
        must divide the new one. Inner widths (heads and hidden units) need not.
        """
        if child == parent:
            return True
        if self.method == "g_stack" or child.d_model % parent.d_model:
            return False
        return self.method == "hypercloning" or self.noise == 0

    def source_of(self, name: str, parent: ModelConfig) -> str:
        """Return the name of the parent's weight that `name` is a copy of. The stack of layers repeats in order
        (arXiv 2405.15319, G_stack)."""
        return _LAYER.sub(lambda layer: str(int(layer[0]) % parent.n_layer), name)

    def grow_tensor(
        self, name: str, degree: int, old: "Tensor", parent: ModelConfig, child: ModelConfig, seed: int
    ) -> "Tensor":
        from tfscale.growth.transformer_width import add_noise, widen_tensor

        assert isinstance(parent, TransformerConfig)
        assert isinstance(child, TransformerConfig)
        wide = widen_tensor(name, degree, old, parent, child)
        if degree > 0 or self.noise == 0:
            return wide
        return add_noise(name, wide, old, self.noise, seed, cancels=self.method == "hypercloning")

    def changes(self, parent: ModelConfig, child: ModelConfig) -> dict[str, Any]:
        names = ("n_layer", "d_model", "n_head", "d_ff")
        return {"shape": {name: {"before": getattr(parent, name), "after": getattr(child, name)} for name in names}}
