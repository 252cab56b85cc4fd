"""Conversion of published points to arms that can be shown next to measured arms."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tfscale.analysis.curves import NO_COST, ArmCurve, Cost, Evaluation, StageCurve
from tfscale.plan.arm_kind import ARM_KINDS

POINT_FIELDS = ("tokens", "perplexity", "device_hours")


def published_arms(reference: Mapping[str, Any], beside: Sequence[ArmCurve] = ()) -> tuple[ArmCurve, ...]:
    """Return the arms described by the content of a file in `conf/reference/`.

    The published values are cumulative tokens, perplexity and cumulative device-hours. FLOPs are computed from the
    tokens if the file states that an arm has the same models as one of the measured arms in `beside`. The loss is the
    logarithm of the perplexity. All other measurements are unknown and are therefore NaN or None. The last point of
    each stage is its final evaluation, and each stage of a chain starts where the previous stage ended.

    Raises:
        ValueError: a field is missing, unknown or of the wrong kind; the message names the arm.
    """
    costs = {(arm.name, stage.size): stage.flops_per_token for arm in beside for stage in arm.stages}
    arms = []
    for number, values in enumerate(reference.get("arms", ())):
        name = values.get("name", f"number {number}")
        try:
            arms.append(_arm(costs, **values))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(
                f"reference arm {name}: {error}. An arm has name, title, kind ({', '.join(ARM_KINDS.names)}), models "
                "(the arm of the comparison that has the same models) and stages; a stage has size and points; a "
                f"point has {', '.join(POINT_FIELDS)} and read_from."
            ) from error
    return tuple(arms)


Costs = Mapping[tuple[str, str], float | None]
"""Mapping from pairs (name of an arm, size) to training FLOPs per token, or to None if they are unknown."""


def _arm(
    costs: Costs, name: str, title: str, kind: str, stages: Sequence[Mapping[str, Any]], models: str | None = None
) -> ArmCurve:
    if kind not in ARM_KINDS.names:
        raise ValueError(f"kind={kind!r}: must be one of {', '.join(ARM_KINDS.names)}")
    curves: list[StageCurve] = []
    for stage in stages:
        before = curves[-1] if kind == "chain" and curves else None
        curves.append(_stage(name, before, costs.get((models or "", stage["size"])), **stage))
    return ArmCurve(name, title, kind, tuple(curves))


def _stage(
    arm: str, before: StageCurve | None, flops: float | None, size: str, points: Sequence[Mapping[str, Any]]
) -> StageCurve:
    start = before.end.totals if before and before.end else NO_COST
    return StageCurve(
        size=size,
        key=f"{arm}/{size}",
        parent=before.key if before else None,
        grown=False,
        parameters=None,
        heldout_tokens=None,
        start=start,
        evaluations=tuple(_evaluation(start, flops, **point) for point in points),
        finished=bool(points),
        flops_per_token=flops,
    )


def _evaluation(
    start: Cost,
    flops: float | None,
    tokens: float,
    perplexity: float,
    device_hours: float,
    read_from: Mapping[str, str],
) -> Evaluation:
    if set(read_from) != set(POINT_FIELDS):
        raise ValueError(f"read_from={dict(read_from)}: must have the source of each of {', '.join(POINT_FIELDS)}")
    return Evaluation(
        step=0,
        tokens=tokens - start.tokens,
        totals=Cost(
            tokens=tokens,
            flops=math.nan if flops is None else start.flops + flops * (tokens - start.tokens),
            flops_with_optimizer=math.nan,
            seconds=math.nan,
            device_seconds=3600 * device_hours,
        ),
        loss=math.log(perplexity),
        perplexity=perplexity,
        bits_per_byte=math.nan,
        read_from=dict(read_from),
    )
