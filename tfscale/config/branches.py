"""Settings of the branches of a trunk."""

from dataclasses import dataclass
from typing import Literal

from tfscale.ranges import Share


@dataclass(frozen=True)
class BranchesPart:
    """Branches of a trunk, which keeps one learning rate through all growths (`tfscale.plan.branches`)."""

    fraction: Share = 0.2
    """Number of tokens of a branch as a fraction of those of its trunk's stage. The learning rate falls linearly to 0
    over these tokens."""
    readings: Literal["own", "all"] = "own"
    """Budgets at which runs from scratch have a branch. `own`: the budget of the size. `all`: the budget of every size
    of the chain, as branches of one trunk, so that costs at equal perplexity are read from decayed models."""
