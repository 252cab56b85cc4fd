"""Conversion of points to MLflow metrics, with names of characters that MLflow allows and integer steps.

The step is the lineage's tokens for a metric over tokens, and the lineage's model GFLOPs for a metric over compute,
which MLflow's charts can also show on a logarithmic axis.
"""

from collections.abc import Sequence
from re import sub
from typing import TYPE_CHECKING

from tfscale.tracking.points import FINAL_PERPLEXITY, PERPLEXITY, Point

if TYPE_CHECKING:
    from mlflow.entities import Metric

_BY_GFLOP = "_by_gflop"
CURVE, ENDPOINTS = f"{PERPLEXITY}{_BY_GFLOP}", f"{FINAL_PERPLEXITY}{_BY_GFLOP}"


def key_and_step(point: Point) -> tuple[str, int]:
    """Return the metric's name and step."""
    name = sub(r"[^\w./ -]", "_", point.name)
    return (name, int(point.at)) if point.over == "tokens" else (f"{name}{_BY_GFLOP}", int(point.at / 1e9))


def metrics(points: Sequence[Point], model_id: str | None = None) -> "list[Metric]":
    """Return points as metrics of a run or of one of its models."""
    from mlflow.entities import Metric

    made = []
    for point in points:
        key, step = key_and_step(point)
        made.append(Metric(key, point.value, point.time, step, model_id))
    return made
