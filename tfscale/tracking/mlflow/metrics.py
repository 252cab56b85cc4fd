"""Points as MLflow metrics: a name of characters that MLflow allows, and a whole number as the step.

Over tokens the step is the lineage's tokens. Over compute it is the lineage's model GFLOPs: MLflow's charts draw such a
metric over compute, on a logarithmic axis too.
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
    """Return the metric's name and the step."""
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
