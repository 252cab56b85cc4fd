"""What each growth of a chain did to its loss."""

from collections.abc import Iterator
from dataclasses import dataclass

from tfscale.analysis.curves import ArmCurve, Evaluation, StageCurve


@dataclass(frozen=True)
class GrowthEvent:
    """One growth, with one seed: losses on the held-out text, nats a token."""

    size: str
    """Grown to."""
    seed: int | None
    key: str
    parent: str
    before: float
    """The parent's last."""
    after: Evaluation
    """The grown model's before any training."""
    end: float | None
    """The stage's last; None until it has finished."""
    tokens_to_recover: float | None
    """Of the stage, at the first evaluation from which no later one of the stage is above `before`; None: it has not
    come back yet."""


def growths(arm: ArmCurve) -> tuple[GrowthEvent, ...]:
    """The arm's growths that were evaluated before and after."""
    return tuple(_growths(arm))


def _growths(arm: ArmCurve) -> Iterator[GrowthEvent]:
    stages = {stage.key: stage for stage in arm.stages}
    for stage in arm.stages:
        parent = stages.get(stage.parent or "")
        if stage.grown and parent is not None and parent.end is not None:
            before = parent.end.loss
            yield GrowthEvent(
                size=stage.size,
                seed=stage.seed,
                key=stage.key,
                parent=parent.key,
                before=before,
                after=stage.evaluations[0],
                end=stage.end.loss if stage.end else None,
                tokens_to_recover=_recovered(stage, before),
            )


def _recovered(stage: StageCurve, before: float) -> float | None:
    above = [index for index, e in enumerate(stage.evaluations) if e.loss > before]
    first = above[-1] + 1 if above else 0
    return stage.evaluations[first].tokens if first < len(stage.evaluations) else None
