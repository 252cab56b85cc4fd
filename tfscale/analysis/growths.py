"""Changes in validation loss at the growths of a chain."""

from dataclasses import dataclass

from tfscale.analysis.curves import ArmCurve, Evaluation, StageCurve


@dataclass(frozen=True)
class GrowthEvent:
    """Growth of a model with one seed. Losses are validation losses in nats per token."""

    size: str
    """Size of the grown model."""
    seed: int | None
    key: str
    parent: str
    before: float
    """Final loss of the parent."""
    after: Evaluation
    """Evaluation of the grown model before any training."""
    end: float | None
    """Final loss of the stage, or None if the stage has not finished."""
    tokens_to_recover: float | None
    """Number of training tokens between the growth and the evaluation from which the loss remains at most `before`, or
    None if the loss has not recovered yet."""


def growths(arm: ArmCurve) -> tuple[GrowthEvent, ...]:
    """Return the growths of an arm, or of its trunk if it has one. Rejected growths, and growths without an evaluation
    before or after them, are omitted."""
    stages = arm.trunk or arm.stages
    parents = {stage.key: stage for stage in (*stages, *arm.detours)}
    pairs = [(stage, parents.get(stage.parent or "")) for stage in stages if stage.grown]
    return tuple(
        GrowthEvent(
            size=stage.size,
            seed=stage.seed,
            key=stage.key,
            parent=parent.key,
            before=parent.end.loss,
            after=stage.evaluations[0],
            end=stage.end.loss if stage.end else None,
            tokens_to_recover=_recovered(stage, parent.end.loss),
        )
        for stage, parent in pairs
        if parent is not None and parent.end is not None
    )


def _recovered(stage: StageCurve, before: float) -> float | None:
    above = [index for index, e in enumerate(stage.evaluations) if e.loss > before]
    first = above[-1] + 1 if above else 0
    return stage.evaluations[first].tokens if first < len(stage.evaluations) else None
