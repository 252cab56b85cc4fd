"""The contents of a checkpoint other than its tensors, and the ranks that write it."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tfscale.totals import NOTHING, Totals

FORMAT = 1
STATE_FILE = "state.json"
MANIFEST_FILE = "manifest.json"
SAVED_OFFSETS_KEY, CUSTOM_METADATA_KEY = "saved_offsets", "DCP_SHARDING_INFO"
"""Keys under which torch's reader finds the offsets of a file's tensors within the whole tensors."""


class BrokenCheckpoint(Exception):
    """Raised for a checkpoint that differs from what was written; the message names the file and the fault."""


class NoRoom(OSError):
    """Raised when the disk has less free space than a checkpoint needs."""


@dataclass(frozen=True)
class Counters:
    """Counters of a stage's progress and cost."""

    step: int = 0
    """Number of optimizer steps of this stage."""
    optimizer_step: int = 0
    """Number of updates by the optimizer, for its bias correction; continued over a growth that carries its state."""
    before: Totals = NOTHING
    """Cost of the lineage when this stage began."""
    totals: Totals = NOTHING
    """Cost of the lineage now."""
    recent_losses: tuple[float, ...] = ()
    """Training losses of the last steps, for detecting spikes."""


def folder_name(step: int) -> str:
    """Return the folder name of the checkpoint at a step; names sort in the order of their steps."""
    return f"step-{step:012d}"


@dataclass(frozen=True)
class Part:
    """Share of a tensor on one rank: `data` [its rows, ...], which starts at `offsets` in the whole tensor."""

    data: Tensor
    offsets: tuple[int, ...]


class Ranks(Protocol):
    """Interface of the processes that write a checkpoint together. All methods are collective calls."""

    rank: int
    size: int

    def any(self, *flags: bool) -> list[bool]:
        """Return, for each flag, whether it is set on any rank."""

    def sum(self, *values: float) -> list[float]:
        """Return the sum of each value over the ranks."""


class _Alone:
    rank, size = 0, 1

    def any(self, *flags: bool) -> list[bool]:
        return list(flags)

    def sum(self, *values: float) -> list[float]:
        return list(values)


ALONE: Ranks = _Alone()
