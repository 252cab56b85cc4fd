"""Cumulative, marginal and family cost of a model.

The cumulative cost is that of the model's whole lineage, including its base. The marginal cost is that of the stage
alone, as if its parent were free. The family cost is that of every size of an arm up to and including this one. They
answer different questions, so each is named wherever it appears.
"""

from collections.abc import Sequence
from dataclasses import fields

from tfscale.analysis.curves import NOTHING, Cost, StageCurve

COSTS = ("cumulative", "marginal", "family")


def cumulative(stage: StageCurve) -> Cost | None:
    """Return the cumulative cost of the stage's model, including its base; None before the stage has finished."""
    return stage.end.totals if stage.end else None


def marginal(stage: StageCurve) -> Cost | None:
    """Return the marginal cost: that of the stage alone; None before it has finished."""
    return stage.end.totals - stage.start if stage.end and stage.start else None


def family(stages: Sequence[StageCurve], size: str) -> Cost | None:
    """Return the family cost: that of an arm's stages of one seed up to and including `size` and of the models that
    they started from, each counted once.

    It is the cumulative cost for a chain, and the sum for runs from scratch. None before all stages have finished.
    """
    sizes = [stage.size for stage in stages]
    wanted = {stage.key: stage for stage in stages[: sizes.index(size) + 1]}
    inherited = {stage.parent: stage.start or NOTHING for stage in wanted.values() if stage.parent not in wanted}
    costs = [marginal(stage) for stage in wanted.values()]
    finished = [cost for cost in costs if cost is not None]
    return sum([*finished, *inherited.values()], NOTHING) if len(finished) == len(costs) else None


def mean(costs: Sequence[Cost | None]) -> Cost | None:
    """Return the mean cost over seeds; None until all are known."""
    known = [cost for cost in costs if cost is not None]
    if not costs or len(known) < len(costs):
        return None
    if len(known) == 1:
        return known[0]  # keeps whole numbers whole
    return Cost(*(sum(getattr(cost, f.name) for cost in known) / len(known) for f in fields(Cost)))
