"""Comparison of the optimizer state in a checkpoint with the slots that an optimizer keeps.

A checkpoint holds exactly the slots of its stage's optimizer, or none before the first update. The slots say which
optimizer that was, since files do not name it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from tfscale.checkpoint.contents import BrokenCheckpoint
from tfscale.optimizers.base import OPTIMIZERS, Optimizer, from_settings

Shapes = Mapping[str, Sequence[int]]
"""Shapes of the tensors in a checkpoint by name, as `tfscale.checkpoint.shapes` returns them."""
_NO_SLOTS = ("model", "rng")
"""Prefixes of the names of tensors that are not slots."""


def slots_in(shapes: Shapes) -> frozenset[str]:
    """Return the names of the slots of all weights in a checkpoint, such as `exp_avg/embedding`."""
    return frozenset(name for name in shapes if name.partition("/")[0] not in _NO_SLOTS)


def slots_of(optimizer: Optimizer, shapes: Shapes) -> frozenset[str]:
    """Return the names of the slots that an optimizer keeps for the weights in a checkpoint."""
    weights = {name.removeprefix("model/"): len(shape) for name, shape in shapes.items() if name.startswith("model/")}
    return frozenset(
        f"{slot.name}/{name}" for name, dimensions in weights.items() for slot in optimizer.slots(name, dimensions)
    )


def kinds(slots: frozenset[str]) -> tuple[str, ...]:
    """Return the different kinds among slots, such as `exp_avg` and `exp_avg_sq`."""
    return tuple(sorted({name.partition("/")[0] for name in slots}))


def check_slots(folder: Path, shapes: Shapes, optimizer: Optimizer, updates: int) -> None:
    """Check that a checkpoint holds the slots of an optimizer that has made `updates` updates.

    Raises:
        BrokenCheckpoint: it does not.
    """
    if fault := slots_fault(shapes, optimizer, updates):
        raise BrokenCheckpoint(f"{folder}: {fault}")


def slots_fault(shapes: Shapes, optimizer: Optimizer, updates: int) -> str | None:
    """Return how a checkpoint differs from that of an optimizer that has made `updates` updates, with the fix; None if
    it holds exactly the optimizer's slots or, before the first update, none."""
    there, kept = slots_in(shapes), slots_of(optimizer, shapes)
    if there == (kept if updates else frozenset()):
        return None
    needed = f"the optimizer of its stage.yaml is {_words(optimizer.name, kept)}"
    if there and there != kept and (others := list(_keepers(there, shapes, optimizer))):
        return (
            f"holds the state of {_words(' or '.join(others), there)}, but {needed}; set it back to {others[0]}, or "
            f"train a stage of its own with `tfscale run optim.name={optimizer.name}`"
        )
    if not there or not updates:
        amount = f"{updates:,} updates" if updates else "no update"
        return f"holds {'' if there else 'no '}optimizer state, but its optimizer has made {amount}; remove it"
    [first, *others] = sorted(there ^ kept)
    what = "is missing" if first in kept else "is none of its slots"
    more = f", and {len(others):,} more slots differ" if others else ""
    return f"{first} {what}{more}; {needed}; remove the checkpoint"


def _keepers(slots: frozenset[str], shapes: Shapes, optimizer: Optimizer) -> Iterator[str]:
    """Yield the names of the optimizers that keep exactly these slots, except `optimizer`."""
    for name in OPTIMIZERS.names:
        with suppress(ValueError):  # an optimizer of an extension that needs settings that this one does not have
            if name != optimizer.name and slots_of(from_settings(name, asdict(optimizer), {}), shapes) == slots:
                yield name


def _words(name: str, slots: frozenset[str]) -> str:
    return f"optimizer.name={name} ({', '.join(kinds(slots))})"
