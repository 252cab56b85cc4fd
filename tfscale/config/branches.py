"""Settings of the branches of a trunk."""

from dataclasses import dataclass
from typing import Literal

from tfscale.ranges import Natural, Share


@dataclass(frozen=True)
class BranchesPart:
    """Branches of a trunk, which keeps one learning rate through all growths (`tfscale.plan.branches`)."""

    fraction: Share = 0.2
    """Tokens of a branch as a fraction of the tokens of its trunk's stage. The learning rate falls linearly to 0 over
    the tokens of the branch."""
    readings: Literal["own", "all"] = "own"
    """Budgets at which runs from scratch have a branch. `own`: the budget of their own size. `all`: the budget of every
    size of the chain, as branches of one trunk, so that costs at equal perplexity are read from models whose learning
    rate has been decayed."""
    smaller_readings: Natural = 0
    """Number of further budgets below the chain's smallest one, each of them half of the next larger one, at which runs
    from scratch have a branch with `readings=all`. With them, costs can also be read at perplexities that an arm
    reaches before the chain's smallest budget."""
