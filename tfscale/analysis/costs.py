"""The three costs of a model.

Cumulative: everything that its lineage took, its base included. Marginal: this stage alone, as if its parent were free.
Family: everything that an arm took to have every size up to and including this one. They answer different questions, so
each is named wherever it appears.
"""

from collections.abc import Sequence
from dataclasses import fields

from tfscale.analysis.curves import NOTHING, Cost, StageCurve

COSTS = ("cumulative", "marginal", "family")


def cumulative(stage: StageCurve) -> Cost | None:
    """Return the cost of the stage's model, base included; None before it has finished."""
    return stage.end.totals if stage.end else None


def marginal(stage: StageCurve) -> Cost | None:
    """Return the cost of the stage alone; None before it has finished."""
    return stage.end.totals - stage.start if stage.end and stage.start else None


def family(stages: Sequence[StageCurve], size: str) -> Cost | None:
    """Return the cost of an arm's stages of one seed up to and including `size`, and of what they started from, each
    counted once.

    For a chain that is the cumulative cost, for runs from scratch their sum. None before all of them have finished.
    """
    sizes = [stage.size for stage in stages]
    wanted = {stage.key: stage for stage in stages[: sizes.index(size) + 1]}
    inherited = {stage.parent: stage.start or NOTHING for stage in wanted.values() if stage.parent not in wanted}
    costs = [marginal(stage) for stage in wanted.values()]
    finished = [cost for cost in costs if cost is not None]
    return sum([*finished, *inherited.values()], NOTHING) if len(finished) == len(costs) else None


def mean(costs: Sequence[Cost | None]) -> Cost | None:
    """Return the mean cost over seeds; None until all of them are known."""
    known = [cost for cost in costs if cost is not None]
    if not costs or len(known) < len(costs):
        return None
    if len(known) == 1:
        return known[0]  # keeps whole numbers whole
    return Cost(*(sum(getattr(cost, f.name) for cost in known) / len(known) for f in fields(Cost)))
