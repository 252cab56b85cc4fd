"""Creation of MLflow LoggedModels, one per finished stage. A model names its checkpoint but contains no weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfscale.tracking.mlflow.metrics import metrics
from tfscale.tracking.points import Point
from tfscale.tracking.runs import KEY, Model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

_EXTERNAL = {"mlflow.model.isExternal": "true"}
"""Tag for models whose weights are stored outside MLflow."""


def send_model(client: "MlflowClient", run: "Run", model: Model, points: Sequence[Point]) -> None:
    """Send the data of a run's model that the store does not have, and link the model to the run. If several arms share
    a stage, they share one model, whose measurements are sent with the first run.

    Args:
        points: measurements of the model, which have already been sent for the run.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run_id, tags = run.info.run_id, model.tags | _EXTERNAL
    stored = _find(client, run, model) or client.create_logged_model(
        run.info.experiment_id, model.name, run_id, tags, model.params, model.family
    )
    if not tags.items() <= stored.tags.items():
        client.set_logged_model_tags(stored.model_id, tags)
    if stored.model_id not in {each.model_id for each in (run.outputs.model_outputs if run.outputs else [])}:
        client.log_outputs(run_id, [LoggedModelOutput(stored.model_id, model.step)])
    if stored.source_run_id == run_id:
        held = {(metric.key, metric.step, metric.timestamp) for metric in stored.metrics or []}
        own = metrics(points, stored.model_id)
        missing = [metric for metric in own if (metric.key, metric.step, metric.timestamp) not in held]
        if missing:
            # This also logs the metrics to the run again, but the run stores equal values only once.
            client.log_batch(run_id, metrics=missing, synchronous=True)
    if stored.status != LoggedModelStatus.READY:
        client.finalize_logged_model(stored.model_id, LoggedModelStatus.READY)


def _find(client: "MlflowClient", run: "Run", model: Model) -> "LoggedModel | None":
    """Return the stored model of the same stage, or None if there is none. If there are several, the one with the
    smallest ID is returned."""
    found = client.search_logged_models([run.info.experiment_id], f"tags.`{KEY}` = '{model.tags[KEY]}'")
    return min(found, key=lambda each: each.model_id, default=None)
