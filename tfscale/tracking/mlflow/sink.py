"""Connection to an experiment of an MLflow store."""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from tfscale.tracking.mlflow.metrics import key_and_step, metrics
from tfscale.tracking.mlflow.view import NOTE, experiment_tags
from tfscale.tracking.points import Point, is_evaluation
from tfscale.tracking.runs import KEY, About, Artifact, Contents, Corpus, Model, identity
from tfscale.tracking.tracker import Sink

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

_RUNS_AT_MOST = 50_000
_METRICS_PER_BATCH, _PARAMS_PER_BATCH = 1000, 100
_LONGEST_PARAM, _LONGEST_NOTE = 6000, 7500
"""Maximum lengths of parameter values and notes in characters. Longer values are truncated, longer notes omitted."""
_NAME, _PARENT, _COLOUR = "mlflow.runName", "mlflow.parentRunId", "mlflow.runColor"
_EXTERNAL = {"mlflow.model.isExternal": "true"}
"""Tag for models whose weights are stored outside MLflow."""

T = TypeVar("T")


class MlflowSink(Sink):
    """Connection to an MLflow experiment, which is created if missing and restored if deleted.

    Args:
        artifacts: URI for the artifacts of a new experiment, or None to let the MLflow server choose the URI.
    """

    def __init__(self, client: "MlflowClient", experiment: str, artifacts: str | None) -> None:
        self._client = client
        self._experiment_id = _experiment_id(client, experiment, artifacts)
        self._found = self._search()
        self._open: dict[str, Run] = {}

    def run_ids(self) -> set[str]:
        return {run.info.run_id for run in self._found.values() if not _is_deleted(run)}

    def open(self, about: About, contents: Contents, parent: str | None) -> str:
        tags = _tags(about, parent)
        if about.identity not in self._found:
            self._found = self._search()  # another process may have created the run since the last search
        if about.identity not in self._found:
            self._found[about.identity] = self._client.create_run(self._experiment_id, contents.start, tags)
        run_id = str(self._found[about.identity].info.run_id)
        run = self._open[run_id] = self._client.get_run(run_id)
        if _is_deleted(run):
            self._client.restore_run(run_id)
        self._send_tags_and_params(run, tags, contents.params)
        if contents.corpus is not None:
            self._send_corpus(run, contents.corpus)
        return run_id

    def point_key(self, point: Point) -> Hashable:
        return _point_key(*key_and_step(point), point.time)

    def stored_counts(self, run_id: str) -> Counter[Hashable]:
        return Counter(
            _point_key(name, metric.step, metric.timestamp)
            for name in self._open[run_id].data.metrics
            for metric in self._client.get_metric_history(run_id, name)
        )

    def send(self, run_id: str, points: Sequence[Point]) -> None:
        for batch in _batches(metrics(points), _METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=batch, synchronous=True)

    def send_file(self, run_id: str, file: Artifact) -> None:
        with TemporaryDirectory() as folder:
            aside = Path(folder) / file.path.name
            aside.write_bytes(file.content())
            self._client.log_artifact(run_id, str(aside))

    def finish(self, run_id: str, contents: Contents) -> None:
        run = self._open[run_id]
        if contents.model is not None:
            _send_model(self._client, run, contents.model, [point for point in contents.points if point.is_of_model])
        status = contents.status.upper()
        if contents.status == "running":
            if run.info.status != status:
                self._client.update_run(run_id, status)
        elif (run.info.status, run.info.end_time) != (status, contents.end):
            self._client.set_terminated(run_id, status, contents.end)

    def _search(self) -> dict[str, "Run"]:
        """Return the runs of the experiment by identity, including deleted runs. If several runs have the same
        identity, runs that are not deleted take precedence, and among these the run with the largest ID."""
        from mlflow.entities import ViewType

        found = list(self._client.search_runs([self._experiment_id], "", ViewType.ALL, _RUNS_AT_MOST))
        found.sort(key=lambda run: (not _is_deleted(run), run.info.run_id))
        return {identity(run.data.tags): run for run in found}

    def _send_tags_and_params(self, run: "Run", tags: dict[str, str], params: dict[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        stored = run.data.tags
        changed = {name: value for name, value in tags.items() if stored.get(name) != value}
        if _COLOUR in stored:
            changed.pop(_COLOUR, None)  # users may choose another colour
        if changed:
            self._client.log_batch(run.info.run_id, tags=[RunTag(*tag) for tag in changed.items()], synchronous=True)
        # MLflow parameters can be written only once. A run's parameters never change, so only missing ones are sent.
        missing = [Param(name, value[:_LONGEST_PARAM]) for name, value in params.items() if name not in run.data.params]
        for batch in _batches(missing, _PARAMS_PER_BATCH):
            self._client.log_batch(run.info.run_id, params=batch, synchronous=True)

    def _send_corpus(self, run: "Run", corpus: Corpus) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = run.inputs.dataset_inputs if run.inputs else []
        if corpus.fingerprint not in {each.dataset.digest for each in inputs}:
            dataset = Dataset(corpus.name, corpus.fingerprint, "tfscale", corpus.source, profile=corpus.profile)
            context = InputTag("mlflow.data.context", "training")
            self._client.log_inputs(run.info.run_id, [DatasetInput(dataset, [context])])


def _experiment_id(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return str(client.create_experiment(name, artifacts, experiment_tags()))
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)  # its name cannot be used for a new experiment
    for tag, value in experiment_tags().items():
        if tag not in experiment.tags:  # changes by users are preserved
            client.set_experiment_tag(experiment.experiment_id, tag, value)
    return str(experiment.experiment_id)


def _send_model(client: "MlflowClient", run: "Run", model: Model, points: Sequence[Point]) -> None:
    """Send the data of a run's model that the store does not have yet, and link the model to the run. The store
    receives the path of the checkpoint, but no weights. Arms that share a stage also share its model. The measurements
    of a shared model are sent only with the run that created the model in the store.

    Args:
        points: measurements of the model, which have already been sent for the run.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run_id, tags = run.info.run_id, model.tags | _EXTERNAL
    stored = _find_model(client, run, model) or client.create_logged_model(
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


def _find_model(client: "MlflowClient", run: "Run", model: Model) -> "LoggedModel | None":
    """Return the stored model of the same stage as `model`, or None if there is no such model. If there are several,
    return the one with the smallest ID."""
    found = client.search_logged_models([run.info.experiment_id], f"tags.`{KEY}` = '{model.tags[KEY]}'")
    return min(found, key=lambda each: each.model_id, default=None)


def _tags(about: About, parent: str | None) -> dict[str, str]:
    shown = {
        _NAME: about.name,
        _PARENT: parent,
        _COLOUR: about.colour,
        NOTE: about.note if len(about.note) <= _LONGEST_NOTE else None,
    }
    return {name: value for name, value in shown.items() if value} | about.tags


def _point_key(key: str, step: int, time: int) -> Hashable:
    """Return the key that identifies a metric value (`Sink.point_key`). Metrics plotted against compute use whole
    GFLOPs as the step, so values of tiny runs can share a key."""
    return key, step, time if is_evaluation(key) else 0


def _is_deleted(run: "Run") -> bool:
    return bool(run.info.lifecycle_stage == "deleted")


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
