"""Comparison of the optimizer state in a checkpoint with the slots of an optimizer. A slot is a tensor of the optimizer
state of one weight, such as `exp_avg`.

A checkpoint contains exactly the slots of its stage's optimizer, or no slots before the first update. A checkpoint from
an older version of tfscale does not contain the name of the optimizer. The optimizer is then identified by its slots.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from tfscale.checkpoint.contents import BrokenCheckpoint, Counters
from tfscale.optimizers.base import OPTIMIZERS, Optimizer, from_settings

Shapes = Mapping[str, Sequence[int]]
"""Shapes of the tensors in a checkpoint by name, as returned by `tfscale.checkpoint.shapes`."""
_NO_SLOTS = ("model", "rng")
"""Prefixes of the names of tensors that are not slots."""


def slots_in(shapes: Shapes) -> frozenset[str]:
    """Return the names of all optimizer slots in a checkpoint, such as `exp_avg/embedding`."""
    return frozenset(name for name in shapes if name.partition("/")[0] not in _NO_SLOTS)


def slots_of(optimizer: Optimizer, shapes: Shapes) -> frozenset[str]:
    """Return the names of the slots that an optimizer has for the weights in a checkpoint."""
    weights = {name.removeprefix("model/"): len(shape) for name, shape in shapes.items() if name.startswith("model/")}
    return frozenset(
        f"{slot.name}/{name}" for name, dimensions in weights.items() for slot in optimizer.slots(name, dimensions)
    )


def kinds(slots: frozenset[str]) -> tuple[str, ...]:
    """Return the distinct kinds of the given slots in alphabetical order, such as `exp_avg` and `exp_avg_sq`."""
    return tuple(sorted({name.partition("/")[0] for name in slots}))


def check_slots(folder: Path, shapes: Shapes, optimizer: Optimizer, counters: Counters) -> None:
    """Raise BrokenCheckpoint if the optimizer slots in a checkpoint are not those of an optimizer (`slots_fault`)."""
    if fault := slots_fault(shapes, optimizer, counters):
        raise BrokenCheckpoint(f"{folder}: {fault}")


def slots_fault(shapes: Shapes, optimizer: Optimizer, counters: Counters) -> str | None:
    """Return a message that describes how the slots in a checkpoint differ from those of an optimizer, and how to fix
    this. Return None if the slots are correct. Before the first update, a checkpoint must contain no slots."""
    there, kept, updates = slots_in(shapes), slots_of(optimizer, shapes), counters.optimizer_step
    if there == (kept if updates else frozenset()) and (not there or counters.optimizer in (None, optimizer.name)):
        return None
    needed = f"stage.yaml says {_words(optimizer.name, kept)}"
    owners = [counters.optimizer] if counters.optimizer else list(_keepers(there, shapes, optimizer))
    if there and owners and optimizer.name not in owners:
        return (
            f"contains the state of {_words(' or '.join(owners), there)}, but {needed}; change stage.yaml back to "
            f"{owners[0]}, or train a separate stage with `tfscale run optim.name={optimizer.name}`"
        )
    if not there or not updates:
        amount = f"{updates:,}" if updates else "no"
        state = "optimizer state" if there else "no optimizer state"
        return f"contains {state}, although the optimizer has made {amount} updates; remove the checkpoint"
    [first, *others] = sorted(there ^ kept)
    what = "is missing" if first in kept else "does not belong to the optimizer"
    more = f", and {len(others):,} more slots differ" if others else ""
    return f"{first} {what}{more}; {needed}; remove the checkpoint"


def _keepers(slots: frozenset[str], shapes: Shapes, optimizer: Optimizer) -> Iterator[str]:
    """Yield the names of all registered optimizers that have exactly the given slots."""
    for name in OPTIMIZERS.names:
        with suppress(ValueError):  # an extension's optimizer may require settings that `optimizer` does not have
            if slots_of(from_settings(name, asdict(optimizer), {}), shapes) == slots:
                yield name


def _words(name: str, slots: frozenset[str]) -> str:
    return f"optimizer.name={name} ({', '.join(kinds(slots))})"
