"""MLflow's LoggedModels: one a finished stage, pointing to its checkpoint. No weights are copied."""

from typing import TYPE_CHECKING

from tfscale.tracking.points import Point
from tfscale.tracking.runs import KEY, Model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

_EXTERNAL = "mlflow.model.isExternal"
"""Tag with which MLflow's page says that the weights lie elsewhere."""


class Models:
    """Those of one experiment, by the key of their stage."""

    def __init__(self, client: "MlflowClient", experiment_id: str) -> None:
        self._client, self._experiment_id = client, experiment_id
        self._found = self._search()

    def send(self, run_id: str, linked: set[str], model: Model) -> list[Point]:
        """Sends what the store lacks of a run's model, and links the two. A stage that several arms share has one
        model, whose measurements come with the run that was there first.

        Args:
            linked: ids of the models that the run is known to have made; this one is added.

        Returns:
            The measurements that were sent, which the run has by that too.
        """
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric

        stored = self._hold(run_id, model)
        if stored.model_id not in linked:
            self._client.log_outputs(run_id, [LoggedModelOutput(stored.model_id, model.step)])
            linked.add(stored.model_id)
        lacking = _lacking(stored, model) if stored.source_run_id == run_id else []
        if lacking:
            metrics = [Metric(each.name, each.value, each.time, each.step, stored.model_id) for each in lacking]
            self._client.log_batch(run_id, metrics=metrics, synchronous=True)
        if stored.status != LoggedModelStatus.READY:
            self._client.finalize_logged_model(stored.model_id, LoggedModelStatus.READY)
        if lacking or stored.status != LoggedModelStatus.READY:
            self._found[model.tags[KEY]] = self._client.get_logged_model(stored.model_id)
        return lacking

    def _hold(self, run_id: str, model: Model) -> "LoggedModel":
        key, tags = model.tags[KEY], model.tags | {_EXTERNAL: "true"}
        if key not in self._found:
            self._found = self._search()  # another process may have made it by now
        if key not in self._found:
            self._found[key] = self._client.create_logged_model(
                self._experiment_id, model.name, run_id, tags, model.params, model.family
            )
        elif any(self._found[key].tags.get(name) != value for name, value in tags.items()):
            self._client.set_logged_model_tags(self._found[key].model_id, tags)
            self._found[key] = self._client.get_logged_model(self._found[key].model_id)
        return self._found[key]

    def _search(self) -> dict[str, "LoggedModel"]:
        """Of two of the same stage, the same one is taken every time."""
        found: list[LoggedModel] = []
        token: str | None = ""
        while token is not None:
            page = self._client.search_logged_models([self._experiment_id], page_token=token or None)
            found += page
            token = page.token or None
        found.sort(key=lambda model: model.model_id, reverse=True)
        return {model.tags[KEY]: model for model in found if KEY in model.tags}


def _lacking(stored: "LoggedModel", model: Model) -> list[Point]:
    held = {(metric.key, metric.step, metric.timestamp) for metric in stored.metrics or []}
    return [point for point in model.points if (point.name, point.step, point.time) not in held]
