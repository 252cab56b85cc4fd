"""Counters and shards in a checkpoint, names of its files, and the error that is raised for a broken checkpoint."""

from dataclasses import dataclass

from torch import Tensor

from tfscale.totals import NO_COST, Totals

FORMAT = 1
STATE_FILE = "state.json"
MANIFEST_FILE = "manifest.json"


class BrokenCheckpoint(Exception):
    """Error raised for a checkpoint that is damaged or incomplete, or that does not match the spec of its stage."""


@dataclass(frozen=True)
class Counters:
    """Counters of the progress and cost of a stage."""

    step: int = 0
    """Number of training steps of this stage, including steps whose update was skipped."""
    optimizer_step: int = 0
    """Number of optimizer updates, including those of the parent if growth carries the optimizer state over."""
    before: Totals = NO_COST
    """Cost of the lineage (the stage and its ancestors) when this stage began."""
    totals: Totals = NO_COST
    """Current cost of the lineage, including this stage so far."""
    recent_losses: tuple[float, ...] = ()
    """Training losses of the most recent steps in nats per token, for the detection of spikes."""
    optimizer: str | None = None
    """Name of the stage's optimizer, or None if weights were imported or the checkpoint is from an older version."""


def folder_name(step: int) -> str:
    """Return the folder name of the checkpoint at a step. The alphabetical order of the names is that of the steps."""
    return f"step-{step:012d}"


@dataclass(frozen=True)
class Part:
    """Shard of a tensor on one rank. The first element of `data` has the index `offsets` in the whole tensor."""

    data: Tensor
    offsets: tuple[int, ...]
