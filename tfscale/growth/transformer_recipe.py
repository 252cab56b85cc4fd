"""Growth operator that widens or deepens a Transformer, as a baseline for growth by adding parameter tokens."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, assert_never

from tfscale.faults import Fault
from tfscale.growth.operator import Growth
from tfscale.models.config import ModelConfig
from tfscale.models.counts import nearest, parameters
from tfscale.models.transformer import TransformerConfig

if TYPE_CHECKING:
    from torch import Tensor

MOST_COPIES = 2**16
MOST_DOUBLINGS = 24
_LAYER = re.compile(r"(?<=blocks\.)\d+(?=\.)")


@dataclass(frozen=True)
class TransformerGrowth(Growth):
    """Settings for growth of a Transformer in width or depth."""

    kind: ClassVar[str] = "transformer"

    method: Literal["net2net", "hypercloning", "g_stack", "middle"]
    """Growth method. `net2net`: add copies of heads and hidden units, and divide the outgoing weights among the copies
    (arXiv 1511.05641). `hypercloning`: double the width once or several times in the same way, optionally with noise
    that cancels (arXiv 2409.12903). `g_stack`: stack copies of all layers, which changes the function (arXiv
    2405.15319). `middle`: stack copies of all layers except the first and the last, as in arXiv 2609.19107, or of all
    layers if there are at most two."""
    noise: float = 0.0
    """Standard deviation of the noise that distinguishes copies, as a fraction of the standard deviation of the
    weights. `net2net`: noise is added to copies, which changes the function. `hypercloning`: noise is added to the
    matrices of the blocks and sums to zero over the copies of an input, which preserves the function. `g_stack`,
    `middle`: must be 0."""
    moments: Literal["carry", "drop"] = "drop"
    """Optimizer state of the child. `drop`: the state starts empty, as in the code of HyperCloning and G_stack.
    `carry`: each copy gets the optimizer state of its original. The growth scales first moments like gradients, and
    second moments like squared gradients."""

    def faults(self) -> Iterator[Fault | str]:
        yield from super().faults()
        if not 0 <= self.noise <= 10:
            rule = "must be a fraction of the weights' standard deviation from 0 to 10"
            yield Fault("transformer_growth.noise", self.noise, rule, "0.01")
        if self.noise and self.deepens:
            rule = f"must be 0 with method={self.method}, where copies are in different layers"
            yield Fault("transformer_growth.noise", self.noise, rule)

    @property
    def deepens(self) -> bool:
        """True if the method adds layers instead of widening the existing ones."""
        return self.method in ("g_stack", "middle")

    @property
    def rounds(self) -> bool:
        return True

    @property
    def carries(self) -> bool:
        return self.moments == "carry"

    def grown_config(self, parent: ModelConfig, target: ModelConfig) -> TransformerConfig:
        if not isinstance(parent, TransformerConfig):
            raise ValueError(
                f"the model is of the family {parent.family}, but growth={self.name} requires a Transformer"
            )
        return self.nearest_shape(parent, parameters(target))

    def nearest_shape(self, parent: TransformerConfig, wanted: int) -> TransformerConfig:
        """Return the config whose number of parameters is nearest to `wanted` in ratio, among the parent's config and
        all configs that the method can produce from it.

        In width, a model grows by whole heads, and d_ff grows in proportion to d_model. The head size does not change,
        because rotary position embeddings depend on it.
        """
        copied = len(self._copied(parent))

        def of(step: int) -> TransformerConfig:
            if self.method == "g_stack" or self.method == "middle":
                return replace(parent, n_layer=parent.n_layer + copied * (step - 1))
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
        """Return True if this growth preserves all logits up to rounding.

        LayerNorm gets the same mean and variance only if every dimension is copied equally often, so the old d_model
        must divide the new d_model. Heads and hidden units may be copied any number of times.
        """
        if child == parent:
            return True
        if self.deepens or child.d_model % parent.d_model:
            return False
        return self.method == "hypercloning" or self.noise == 0

    def source_of(self, name: str, parent: ModelConfig, child: ModelConfig) -> str:
        copied = self._copied(parent)
        stacked = [copied[i % len(copied)] for i in range(child.n_layer - parent.n_layer + len(copied))]
        originals = [*range(copied.start), *stacked, *range(copied.stop, parent.n_layer)]
        return _LAYER.sub(lambda layer: str(originals[int(layer[0])]), name)

    def _copied(self, parent: ModelConfig) -> range:
        """Return the indices of the parent's layers that a growth in depth copies."""
        edge = 1 if self.method == "middle" and parent.n_layer > 2 else 0
        return range(edge, parent.n_layer - edge)

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
