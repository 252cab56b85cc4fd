"""Growth of a Transformer in depth, by stacking (arXiv 2405.15319, its operator G_stack)."""

import re

from tfscale.models.transformer import TransformerConfig

_LAYER = re.compile(r"(?<=blocks\.)\d+(?=\.)")


def source_of(name: str, parent: TransformerConfig) -> str:
    """The parent's weight that the deeper model's weight `name` is a copy of. Above the last layer the first one comes
    again, and so on."""
    return _LAYER.sub(lambda layer: str(int(layer[0]) % parent.n_layer), name)
