"""Growth from checkpoint to checkpoint, on the CPU, tensor by tensor."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint, Counters
from tfscale.checkpoint.stored import Stored
from tfscale.growth.operators import Role, grow_tensor
from tfscale.growth.recipe import GrowthRecipe
from tfscale.models.tokenformer import TokenFormerConfig

_ROLES: dict[str, Role] = {"model": "weight", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}


def grow_checkpoint(parent: Path, child: Path, config: TokenFormerConfig, recipe: GrowthRecipe, seed: int) -> None:
    """Writes the checkpoint at step 0 of a stage that grows out of `parent`.

    The child's totals go on from its parent's; its step count starts anew. Memory stays near a few times the largest
    tensor: one is written while the next is made.

    Args:
        parent: a whole checkpoint of a TokenFormer.
        child: the folder to write.
        config: of the child, from `grow_config`.

    Raises:
        BrokenCheckpoint: the parent cannot be read.
        OSError: the child cannot be written; nothing is left behind under its name.
    """
    old_config, old = checkpoint.read_state(parent)
    if not isinstance(old_config, TokenFormerConfig):
        raise BrokenCheckpoint(f"{parent}: is of a Transformer; only a TokenFormer grows by parameter tokens")
    carried = recipe.moments != "drop"
    wanted = ("model/", "exp_avg/", "exp_avg_sq/") if carried else ("model/",)
    stored = Stored(parent)
    tensors = {name: shape for name, shape in sorted(stored.shapes().items()) if name.startswith(wanted)}

    def grown() -> Iterator[tuple[str, Tensor]]:
        for name, shape in tensors.items():
            kind, weight = name.split("/", 1)
            tensor = torch.empty(shape)
            stored.read({name: tensor})
            yield name, grow_tensor(weight, _ROLES[kind], tensor, old_config, config, recipe, seed)

    counters = Counters(0, old.optimizer_step if carried else 0, before=old.totals, totals=old.totals)
    checkpoint.write_aside(child, config, counters, lambda aside: checkpoint.write_each(aside, grown()))
