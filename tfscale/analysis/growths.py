"""Changes in validation loss at the growths of a chain."""

from dataclasses import dataclass

from tfscale.analysis.curves import ArmCurve, Cost


@dataclass(frozen=True)
class GrowthEvent:
    """Growth of one model to a larger size, for one seed. Losses are validation losses in nats per token."""

    size: str
    """Size of the grown model."""
    seed: int | None
    key: str
    parent: str
    loss_before: float
    """Final loss of the parent."""
    loss_after: float
    """Loss of the grown model before any training."""
    loss_end: float | None
    """Final loss of the stage, or None if the stage has not finished."""
    tokens_to_recover: float | None
    """Number of training tokens after the growth at the first evaluation from which the loss stays at or below
    `loss_before`, or None if there is no such evaluation yet."""
    cost: Cost
    """Cumulative cost of the model and all its ancestors at the time of the growth."""


def growths(arm: ArmCurve) -> tuple[GrowthEvent, ...]:
    """Return the growths of an arm, or of its trunk if it has one. Rejected growths, and growths for which the model
    was not evaluated both before and after the growth, are omitted."""
    stages = arm.trunk or arm.stages
    parents = {stage.key: stage for stage in (*stages, *arm.detours)}
    events = []
    for stage in stages:
        parent = parents.get(stage.parent or "")
        if not stage.grown or parent is None or parent.end is None:
            continue
        before, first, end = parent.end.loss, stage.evaluations[0], stage.end
        above = [index for index, e in enumerate(stage.evaluations) if e.loss > before]
        recovered = stage.evaluations[above[-1] + 1 if above else 0 :]
        events.append(
            GrowthEvent(
                size=stage.size,
                seed=stage.seed,
                key=stage.key,
                parent=parent.key,
                loss_before=before,
                loss_after=first.loss,
                loss_end=end.loss if end else None,
                tokens_to_recover=recovered[0].tokens if recovered else None,
                cost=first.totals,
            )
        )
    return tuple(events)
