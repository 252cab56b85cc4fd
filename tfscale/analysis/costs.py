"""Cumulative and marginal cost of a model.

The cumulative cost is the cost of the model's whole lineage, including the base. The marginal cost is the cost of the
stage alone, without its parent. The family cost of several sizes depends on their perplexities
(`tfscale.analysis.family`). These costs answer different questions, so every table and figure names the cost that it
shows.
"""

from collections.abc import Sequence
from dataclasses import fields

from tfscale.analysis.curves import Cost, StageCurve

COSTS = ("cumulative", "marginal")


def cumulative(stage: StageCurve) -> Cost | None:
    """Return the cumulative cost of a stage's model, including the base, or None if the stage has not finished."""
    return stage.end.totals if stage.end else None


def marginal(stage: StageCurve) -> Cost | None:
    """Return the marginal cost, which is the cost of the stage alone, with a rejected growth before it, or None if the
    stage has not finished."""
    start = stage.stages[0].start
    return stage.end.totals - start if stage.end and start else None


def mean(costs: Sequence[Cost | None]) -> Cost | None:
    """Return the mean of costs over seeds, or None if any cost is unknown."""
    known = [cost for cost in costs if cost is not None]
    if not costs or len(known) < len(costs):
        return None
    if len(known) == 1:
        return known[0]  # keeps integers
    return Cost(*(sum(getattr(cost, f.name) for cost in known) / len(known) for f in fields(Cost)))
