"""Growth of a Transformer, the baseline of growth by parameter tokens: its settings, and what follows from them."""

from dataclasses import dataclass, replace
from typing import Any, Literal, assert_never

from tfscale.faults import Fault, InvalidInput
from tfscale.models.counts import parameters
from tfscale.models.nearest import nearest
from tfscale.models.transformer import TransformerConfig

MOST_COPIES = 2**16
MOST_DOUBLINGS = 24


@dataclass(frozen=True)
class TransformerGrowth:
    """One way of making a trained Transformer larger and of going on after it."""

    name: str
    method: Literal["net2net", "hypercloning", "g_stack"]
    """`net2net`: more heads and hidden units, each a copy of an old one whose outgoing weights are divided among the
    copies (arXiv 1511.05641). `hypercloning`: the same in doublings, with noise that cancels (arXiv 2409.12903).
    `g_stack`: the layers are stacked several times on top of each other; the function changes (arXiv 2405.15319)."""
    noise: float = 0.0
    """Standard deviation of noise that tells copies apart, as a fraction of the weights' own. `net2net`: on copies, and
    the function changes by as much. `hypercloning`: on all weights, and sums to zero over the copies of an input, so
    the function stays. None with `g_stack`, whose copies differ by where they stand."""
    moments: Literal["carry", "drop"] = "drop"
    """`drop`: AdamW starts empty, as in the code of HyperCloning and G_stack. `carry`: each copy has the moments of its
    original, scaled as its gradient is."""
    lr: Literal["rewarm", "continue"] = "rewarm"
    """Where the child's warm-up starts: at zero or at the parent's last learning rate."""
    data: Literal["continue", "restart"] = "continue"
    """Whether the child reads on where its parent stopped, or from the first batch again."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 10:
            rule = "must be a fraction of the weights' deviation, from 0 to 10"
            raise InvalidInput(Fault("transformer_growth.noise", self.noise, rule, "0.01"))
        if self.noise and self.method == "g_stack":
            rule = "must be 0 with method=g_stack, which has no copies side by side"
            raise InvalidInput(Fault("transformer_growth.noise", self.noise, rule))

    def operator(self) -> dict[str, Any]:
        """All that the growth itself needs to know."""
        return dict(vars(self))


def grow_shape(parent: TransformerConfig, growth: TransformerGrowth, wanted: int) -> TransformerConfig:
    """Of all shapes that the method can make out of the parent's, itself among them, the one whose number of
    parameters is nearest to `wanted` in ratio.

    Width grows by whole heads of the same size, for rotary positions depend on it, and d_ff along with d_model. With
    `net2net` by any number of heads, with `hypercloning` by doublings; with `g_stack` layers are multiplied.
    """

    def of(step: int) -> TransformerConfig:
        if growth.method == "g_stack":
            return replace(parent, n_layer=parent.n_layer * step)
        if growth.method == "hypercloning":
            heads = parent.n_head * 2 ** (step - 1)
        elif growth.method == "net2net":
            heads = parent.n_head + step - 1
        else:
            assert_never(growth.method)
        d_model, d_ff = (width * heads // parent.n_head for width in (parent.d_model, parent.d_ff))
        return replace(parent, n_head=heads, d_model=d_model, d_ff=d_ff)

    most = MOST_DOUBLINGS if growth.method == "hypercloning" else MOST_COPIES
    return of(nearest(lambda step: parameters(of(step)), wanted, most))


def can_make(growth: TransformerGrowth, parent: TransformerConfig, child: TransformerConfig) -> bool:
    """Whether the method makes the child's shape out of the parent's."""
    layers, heads = child.n_layer // parent.n_layer, child.n_head
    d_model, d_ff = (width * heads // parent.n_head for width in (parent.d_model, parent.d_ff))
    if growth.method == "g_stack":
        return layers > 0 and child == replace(parent, n_layer=parent.n_layer * layers)
    whole = heads % parent.n_head == 0 or growth.method == "net2net"
    return heads >= parent.n_head and whole and child == replace(parent, n_head=heads, d_model=d_model, d_ff=d_ff)


def transformer_preserves(growth: TransformerGrowth, parent: TransformerConfig, child: TransformerConfig) -> bool:
    """Whether this growth leaves every logit as it was, up to rounding.

    LayerNorm sees the same mean and variance only where every dimension is copied equally often, so d_model has to
    divide the new one. Inner widths, of heads and hidden units, need not.
    """
    if child == parent:
        return True
    if growth.method == "g_stack" or child.d_model % parent.d_model:
        return False
    return growth.method == "hypercloning" or growth.noise == 0
