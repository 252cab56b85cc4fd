"""Initial optimizer state of a grown stage, in which all slots are grown from the parent's slots or all start empty.

All weights share one number of updates, which AdamW uses for its bias correction. If the optimizer changes between a
parent and its child, the parent's number would be wrong for every slot that starts empty. In this case no slots are
carried over, not even those of weights that both optimizers update in the same way, such as the embedding with Muon and
AdamW.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tfscale.checkpoint.slots import Shapes, kinds, slots_in, slots_of
from tfscale.growth.operator import Growth
from tfscale.optimizers.base import Optimizer


@dataclass(frozen=True)
class OptimizerState:
    """Initial optimizer state of a grown stage, stored as `optimizer` in growth.json."""

    parent: str | None
    """Name of the optimizer whose state the parent's checkpoint contains, or None if it contains no optimizer state."""
    child: str
    """Name of the optimizer of the grown stage."""
    carried: bool
    """True if all slots are grown from the parent's slots; False if all slots start empty."""
    slots: tuple[str, ...]
    """Kinds of the slots of the grown stage's optimizer, such as `exp_avg`."""
    updates: int
    """Initial number of optimizer updates, which is 0 if the slots start empty."""
    note: str | None
    """Message that explains why the slots start empty although the recipe carries them over; otherwise None."""


def state_after(growth: Growth, parent: Optimizer, child: Optimizer, shapes: Shapes, updates: int) -> OptimizerState:
    """Return the initial optimizer state of a grown stage.

    Args:
        parent, child: optimizers of the parent and of the stage.
        shapes: shapes of the tensors in the parent's checkpoint.
        updates: number of updates of the parent's optimizer.
    """
    before = parent.name if slots_in(shapes) else None
    carried = growth.carries and before == child.name
    slots = kinds(slots_of(child, shapes))
    note = _note(before, child.name, slots) if growth.carries and not carried else None
    return OptimizerState(before, child.name, carried, slots, updates if carried else 0, note)


def _note(before: str | None, after: str, slots: Sequence[str]) -> str:
    changed = f"the optimizer changes from {before} to {after}"
    reason = "the parent's checkpoint contains no optimizer state" if before is None else changed
    return f"{reason}, so all slots of {after} ({', '.join(slots)}) start empty and the number of updates starts at 0"
