"""Use of a growth operator to convert the checkpoint of a parent stage to the initial checkpoint of its child stage.
Tensors are converted one at a time on the CPU."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tfscale import checkpoint
from tfscale.checkpoint import Counters
from tfscale.checkpoint.slots import Shapes, check_slots, kinds, slots_in, slots_of
from tfscale.checkpoint.stored import Stored
from tfscale.growth.operator import Growth
from tfscale.models.config import ModelConfig
from tfscale.models.init import build_model
from tfscale.optimizers.base import Optimizer, Slot
from tfscale.totals import Totals


@dataclass(frozen=True)
class OptimizerState:
    """Description of the initial optimizer state of a grown stage, stored as `optimizer` in growth.json.

    All weights share one number of updates, which AdamW uses for its bias correction. If the optimizers of parent and
    child differ, the parent's number would be wrong for every slot that starts empty. In this case, no slots are
    carried over, not even the slots of weights that both optimizers update in the same way.
    """

    parent: str | None
    """Name of the optimizer whose state the parent's checkpoint contains, or None if the checkpoint contains no
    optimizer state."""
    child: str
    """Name of the optimizer of the grown stage."""
    carried: bool
    """True if all slots are grown from the parent's slots; False if all slots start empty."""
    slots: tuple[str, ...]
    """Names of the slots that the grown stage's optimizer has for its weights, such as `exp_avg`."""
    updates: int
    """Initial number of optimizer updates, which is 0 if the slots start empty."""
    note: str | None
    """Message that explains why the slots start empty although the growth settings request the parent's slots. None if
    the slots are carried over, or if the growth settings request empty slots."""


def grow_checkpoint(
    parent: Path,
    child: Path,
    config: ModelConfig,
    growth: Growth,
    optimizer: Optimizer,
    seed: int,
    trained_with: Optimizer | None = None,
    spent: Totals | None = None,
) -> OptimizerState:
    """Grow the checkpoint in the folder `parent`, write the result to the folder `child` as the checkpoint at step 0 of
    the child stage, and return a description of the initial optimizer state. The training cost of the child
    (`Totals`) starts from the cost of the parent, and the step count starts at 0. Peak memory is a few times the size
    of the largest tensor.

    Args:
        config: config of the child, from `growth.grown_config`.
        optimizer: optimizer of the child.
        trained_with: optimizer of the parent, or None if the child has the same optimizer.
        spent: initial training cost of the child, or None for the cost recorded in the parent's checkpoint.

    Raises:
        BrokenCheckpoint: the parent's checkpoint cannot be read, or its slots are not those of the parent's optimizer.
        ValueError: the growth operator cannot turn the parent's config into `config`.
        OSError: the child's checkpoint cannot be written; no partial folder is left behind.
    """
    old_config, old = checkpoint.read_state(parent)
    try:
        made = growth.grown_config(old_config, config)
    except ValueError as error:
        raise ValueError(f"{parent}: {error}") from error
    if made != config:
        raise ValueError(f"{parent}: growth={growth.name} must turn {old_config} into {config}, but it makes {made}")
    stored = Stored(parent)
    shapes = stored.shapes()
    check_slots(parent, shapes, trained_with or optimizer, old)
    state = _state_after(growth, trained_with or optimizer, optimizer, shapes, old.optimizer_step)

    def grown() -> Iterator[tuple[str, Tensor]]:
        for name, weight in build_model(config, device="meta").named_parameters():
            slots = optimizer.slots(name, weight.dim()) if state.carried else ()
            source = growth.source_of(name, old_config, config)
            for slot in (Slot("model", 0), *slots):
                tensor = torch.empty(shapes[f"{slot.name}/{source}"])
                stored.read({f"{slot.name}/{source}": tensor})
                yield f"{slot.name}/{name}", growth.grow_tensor(name, slot.degree, tensor, old_config, config, seed)

    before = spent or old.totals
    counters = Counters(0, state.updates, before=before, totals=before, optimizer=optimizer.name)
    checkpoint.write_aside(child, config, counters, lambda aside: checkpoint.write_each(aside, grown()))
    return state


def _state_after(growth: Growth, parent: Optimizer, child: Optimizer, shapes: Shapes, updates: int) -> OptimizerState:
    before = parent.name if slots_in(shapes) else None
    carried = growth.carries and before == child.name
    slots = kinds(slots_of(child, shapes))
    note = None
    if growth.carries and not carried:
        changed = f"the optimizer changes from {before} to {child.name}"
        reason = "the parent's checkpoint contains no optimizer state" if before is None else changed
        empty = f"all slots of {child.name} ({', '.join(slots)}) start empty"
        note = f"{reason}, so {empty} and the number of updates starts at 0"
    return OptimizerState(before, child.name, carried, slots, updates if carried else 0, note)
