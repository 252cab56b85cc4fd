"""Cumulative, marginal and family cost of a model.

The cumulative cost is the cost of the model's whole lineage, including the base. The marginal cost is the cost of the
stage alone, without its parent. The family cost is the cost of all sizes of an arm up to and including this size. These
costs answer different questions, so every table and figure names the cost that it shows.
"""

from collections.abc import Sequence
from dataclasses import fields

from tfscale.analysis.curves import NOTHING, Cost, StageCurve

COSTS = ("cumulative", "marginal", "family")


def cumulative(stage: StageCurve) -> Cost | None:
    """Return the cumulative cost of a stage's model, including the base, or None if the stage has not finished."""
    return stage.end.totals if stage.end else None


def marginal(stage: StageCurve) -> Cost | None:
    """Return the marginal cost, which is the cost of the stage alone, or None if the stage has not finished."""
    return stage.end.totals - stage.start if stage.end and stage.start else None


def family(stages: Sequence[StageCurve], size: str) -> Cost | None:
    """Return the family cost, which is the cost of an arm's stages of one seed up to and including `size` and of the
    models from which they started, each counted once.

    The family cost of a chain is its cumulative cost, or with branches the cost of the trunk and of all branches. That
    of runs from scratch is the sum of their costs. The result is None if a stage has not finished.
    """
    sizes = [stage.size for stage in stages]
    runs = stages[: sizes.index(size) + 1]
    wanted = {stage.key: stage for run in runs for stage in run.stages}
    inherited = {stage.parent: stage.start or NOTHING for stage in wanted.values() if stage.parent not in wanted}
    costs = [marginal(stage) for stage in wanted.values()]
    finished = [cost for cost in costs if cost is not None]
    return sum([*finished, *inherited.values()], NOTHING) if len(finished) == len(costs) else None


def mean(costs: Sequence[Cost | None]) -> Cost | None:
    """Return the mean of costs over seeds, or None if any cost is unknown."""
    known = [cost for cost in costs if cost is not None]
    if not costs or len(known) < len(costs):
        return None
    if len(known) == 1:
        return known[0]  # keeps integers
    return Cost(*(sum(getattr(cost, f.name) for cost in known) / len(known) for f in fields(Cost)))
