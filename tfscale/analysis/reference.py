"""Points that others published, as arms: so that the same functions compare them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from tfscale.analysis.curves import NOTHING, ArmCurve, Evaluation, StageCurve, Totals
from tfscale.schedule.arms import ArmKind

POINT_FIELDS = ("tokens", "perplexity", "device_hours")


def published_arms(reference: Mapping[str, Any]) -> tuple[ArmCurve, ...]:
    """The arms of a file of `conf/reference/`, as plain values.

    Published are tokens, perplexity and device-hours, cumulative; all else is not known (NaN). A stage's points are
    its evaluations; its last one is its end. A chain's stage starts where the one before it ended.

    Raises:
        ValueError: a field that is missing, unknown or of the wrong kind; the message names the arm.
    """
    arms = []
    for number, values in enumerate(reference.get("arms", ())):
        name = values.get("name", f"number {number}")
        try:
            arms.append(_arm(**values))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(
                f"reference arm {name}: {error}. An arm has name, title, kind ({', '.join(get_args(ArmKind))}) and "
                f"stages; a stage has size and points; a point has {', '.join(POINT_FIELDS)} and read_from."
            ) from error
    return tuple(arms)


def _arm(name: str, title: str, kind: ArmKind, stages: Sequence[Mapping[str, Any]]) -> ArmCurve:
    if kind not in get_args(ArmKind):
        raise ValueError(f"kind={kind!r}")
    curves: list[StageCurve] = []
    for stage in stages:
        before = curves[-1] if kind == "chain" and curves else None
        curves.append(_after(before, _stage(name, **stage)) if before else _stage(name, **stage))
    return ArmCurve(name, title, kind, tuple(curves))


def _stage(arm: str, size: str, points: Sequence[Mapping[str, Any]]) -> StageCurve:
    return StageCurve(
        size=size,
        key=f"{arm}/{size}",
        parent=None,
        grown=False,
        parameters=None,
        heldout_tokens=None,
        start=NOTHING,
        evaluations=tuple(_evaluation(**point) for point in points),
        finished=bool(points),
    )


def _after(before: StageCurve, stage: StageCurve) -> StageCurve:
    return replace(stage, parent=before.key, start=before.end.totals if before.end else None)


def _evaluation(tokens: float, perplexity: float, device_hours: float, read_from: Mapping[str, str]) -> Evaluation:
    if set(read_from) != set(POINT_FIELDS):
        raise ValueError(f"read_from says where each of {', '.join(POINT_FIELDS)} was read, not {dict(read_from)}")
    totals = Totals(tokens=tokens, flops=math.nan, seconds=math.nan, device_seconds=3600 * device_hours)
    return Evaluation(
        step=0, tokens=math.nan, totals=totals, loss=math.log(perplexity), perplexity=perplexity, bits_per_byte=math.nan
    )
