"""What a checkpoint holds beside its tensors, and who writes it."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tfscale.totals import NOTHING, Totals

FORMAT = 1
STATE_FILE = "state.json"
MANIFEST_FILE = "manifest.json"
SAVED_OFFSETS_KEY, CUSTOM_METADATA_KEY = "saved_offsets", "DCP_SHARDING_INFO"
"""Where torch's reader looks for the place of a file's tensors in the whole ones."""


class BrokenCheckpoint(Exception):
    """A checkpoint that is not what was written; the message names the file and the fault."""


class NoRoom(OSError):
    """There is less room on the disk than a checkpoint needs."""


@dataclass(frozen=True)
class Counters:
    """Where a stage stands."""

    step: int = 0
    """Optimizer steps of this stage."""
    optimizer_step: int = 0
    """AdamW's own count, behind its bias correction; it goes on over a growth that carries the moments."""
    before: Totals = NOTHING
    """Of the lineage when this stage began: what its parents cost."""
    totals: Totals = NOTHING
    """Of the lineage now."""
    recent_losses: tuple[float, ...] = ()
    """Training losses of the last steps, which the next one is compared with."""


def folder_name(step: int) -> str:
    """Name of the checkpoint at a step; names sort as steps do."""
    return f"step-{step:012d}"


@dataclass(frozen=True)
class Part:
    """A rank's share of a tensor: `data` [its rows, ...], which begins at `offsets` of the whole."""

    data: Tensor
    offsets: tuple[int, ...]


class Ranks(Protocol):
    """The processes that write a checkpoint together. Its methods are collective calls."""

    rank: int
    size: int

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is up on any rank."""

    def sum(self, *values: float) -> list[float]:
        """The sum of each value over the ranks."""


class _Alone:
    rank, size = 0, 1

    def any(self, *flags: bool) -> list[bool]:
        return list(flags)

    def sum(self, *values: float) -> list[float]:
        return list(values)


ALONE: Ranks = _Alone()
