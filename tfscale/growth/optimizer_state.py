"""The optimizer state of a grown stage, which continues its parent's as a whole or starts empty as a whole.

One count of updates belongs to all weights, and AdamW corrects the bias of its slots by it. If a stage has another
optimizer than its parent, this count is wrong for every slot that starts empty. Therefore nothing is carried then, not
even the slots of weights that both optimizers update in the same way, such as the embedding under Muon and AdamW.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tfscale.checkpoint.slots import Shapes, kinds, slots_in, slots_of
from tfscale.growth.operator import Growth
from tfscale.optimizers.base import Optimizer


@dataclass(frozen=True)
class OptimizerState:
    """Optimizer state with which a grown stage starts; growth.json holds it as `optimizer`."""

    parent: str | None
    """Name of the optimizer whose state the parent's checkpoint holds; None if it holds none."""
    child: str
    """Name of the stage's optimizer."""
    carried: bool
    """True if all slots are those of the parent, grown like its weights; False if all slots start empty."""
    slots: tuple[str, ...]
    """Kinds of the slots of the stage's optimizer."""
    updates: int
    """Number of updates from which the optimizer counts on; 0 if its slots start empty."""
    note: str | None
    """Message that the slots start empty although the recipe carries them, and why; None if it does not or they do
    not."""


def state_after(growth: Growth, parent: Optimizer, child: Optimizer, shapes: Shapes, updates: int) -> OptimizerState:
    """Return the optimizer state with which a stage starts.

    Args:
        parent, child: optimizers of the parent and of the stage.
        shapes: shapes of the tensors in the parent's checkpoint.
        updates: number of updates that the parent's optimizer has counted.
    """
    before = parent.name if slots_in(shapes) else None
    carried = growth.carries and before == child.name
    slots = kinds(slots_of(child, shapes))
    note = _note(before, child.name, slots) if growth.carries and not carried else None
    return OptimizerState(before, child.name, carried, slots, updates if carried else 0, note)


def _note(before: str | None, after: str, slots: Sequence[str]) -> str:
    changed = f"the optimizer changes from {before} to {after}"
    reason = "the parent's checkpoint holds no optimizer state" if before is None else changed
    return f"{reason}: all slots of {after} ({', '.join(slots)}) start empty, and its count of updates starts at 0"
