"""Growth of a Transformer from checkpoint to checkpoint, on the CPU, tensor by tensor."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint, Counters
from tfscale.checkpoint.stored import Stored
from tfscale.growth.operators import Role
from tfscale.growth.transformer_depth import source_of
from tfscale.growth.transformer_recipe import TransformerGrowth, can_make
from tfscale.growth.transformer_width import widen_tensor
from tfscale.models.init import build_model
from tfscale.models.transformer import TransformerConfig

_ROLES: dict[str, Role] = {"model": "weight", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}


def grow_transformer_checkpoint(
    parent: Path, child: Path, config: TransformerConfig, growth: TransformerGrowth, seed: int
) -> None:
    """Writes the checkpoint at step 0 of a stage that grows out of `parent`.

    The child's totals go on from its parent's; its step count starts anew. Memory stays near a few times the largest
    tensor: one is written while the next is made.

    Args:
        parent: a whole checkpoint of a Transformer.
        child: the folder to write.
        config: of the child, from `grow_shape`.

    Raises:
        BrokenCheckpoint: the parent cannot be read.
        ValueError: the child's shape cannot be made out of the parent's.
        OSError: the child cannot be written; nothing is left behind under its name.
    """
    old_config, old = checkpoint.read_state(parent)
    if not isinstance(old_config, TransformerConfig):
        raise BrokenCheckpoint(f"{parent}: is of a TokenFormer; growth={growth.name} is for Transformers")
    if not can_make(growth, old_config, config):
        raise ValueError(f"{parent}: {growth.method} does not make {config} out of {old_config}")
    carried = growth.moments == "carry"
    kinds = ("model", "exp_avg", "exp_avg_sq") if carried else ("model",)
    stored = Stored(parent)
    shapes = stored.shapes()
    weights = [name for name, _ in build_model(config, device="meta").named_parameters()]

    def grown() -> Iterator[tuple[str, Tensor]]:
        for kind, weight in product(kinds, weights):
            source = f"{kind}/{source_of(weight, old_config)}"
            tensor = torch.empty(shapes[source])
            stored.read({source: tensor})
            yield f"{kind}/{weight}", widen_tensor(weight, _ROLES[kind], tensor, old_config, config, growth, seed)

    counters = Counters(0, old.optimizer_step if carried else 0, before=old.totals, totals=old.totals)
    checkpoint.write_aside(child, config, counters, lambda aside: checkpoint.write_each(aside, grown()))
