"""Conversion of metric values (`tfscale.tracking.points.Point`) to MLflow metrics, which have restricted names and
integer steps.

The step of an MLflow metric is its position on the x-axis. For metrics whose x-axis is the number of training tokens,
the step is the cumulative number of tokens. For metrics whose x-axis is compute, the step is the cumulative number of
model GFLOPs. Both numbers include parent stages. MLflow can plot steps on a logarithmic axis.
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
    """Return the name and step of the MLflow metric for a point."""
    name = sub(r"[^\w./ -]", "_", point.name)
    return (name, int(point.at)) if point.over == "tokens" else (f"{name}{_BY_GFLOP}", int(point.at / 1e9))


def metrics(points: Sequence[Point], model_id: str | None = None) -> "list[Metric]":
    """Return points as MLflow metrics of a run or, if `model_id` is given, of the model with this ID."""
    from mlflow.entities import Metric

    named = [(point, *key_and_step(point)) for point in points]
    return [Metric(key, point.value, point.time, step, model_id) for point, key, step in named]
