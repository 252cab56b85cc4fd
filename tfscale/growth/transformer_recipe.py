"""Growth of a Transformer, in width or depth: the baseline of growth by parameter tokens."""

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
    """Settings of a growth of a Transformer."""

    kind: ClassVar[str] = "transformer"

    method: Literal["net2net", "hypercloning", "g_stack"]
    """`net2net`: more heads and hidden units, each a copy of an old one whose outgoing weights are divided among the
    copies (arXiv 1511.05641). `hypercloning`: the same in doublings, with noise that cancels (arXiv 2409.12903).
    `g_stack`: the layers are stacked several times on top of each other; the function changes (arXiv 2405.15319)."""
    noise: float = 0.0
    """Standard deviation of noise that tells copies apart, as a fraction of the weights' own. `net2net`: on copies, and
    the function changes by as much. `hypercloning`: on all weights, and sums to zero over the copies of an input, so
    the function stays. It must be 0 with `g_stack`, whose copies are in different layers."""
    moments: Literal["carry", "drop"] = "drop"
    """`drop`: the optimizer starts empty, as in the code of HyperCloning and G_stack. `carry`: each copy has the state
    of its original, scaled as its gradient is."""

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
        """Return, of all shapes that the method can make out of the parent's, itself among them, the one whose number
        of parameters is nearest to `wanted` in ratio.

        Width grows by whole heads of the same size, for rotary positions depend on it, and d_ff along with d_model.
        With `net2net` by any number of heads, with `hypercloning` by doublings; with `g_stack` layers are multiplied.
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
        """Return whether this growth leaves every logit as it was, up to rounding.

        LayerNorm sees the same mean and variance only where every dimension is copied equally often, so d_model has to
        divide the new one. Inner widths, of heads and hidden units, need not.
        """
        if child == parent:
            return True
        if self.method == "g_stack" or child.d_model % parent.d_model:
            return False
        return self.method == "hypercloning" or self.noise == 0

    def source_of(self, name: str, parent: ModelConfig) -> str:
        """Return the parent's weight that `name` is a copy of. Layers repeat in their order
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
