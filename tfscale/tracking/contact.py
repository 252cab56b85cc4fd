"""One process's contact with one experiment: what the store holds, read from it, and what it still lacks, sent."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tfscale.tracking.models import Models
from tfscale.tracking.points import Place, Point, place
from tfscale.tracking.runs import COLOUR, Corpus, History, Run, identity, stamp
from tfscale.tracking.store import Store, connect
from tfscale.tracking.view import experiment_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun

_METRICS_A_BATCH = 1000
_PARAMS_A_BATCH = 100

T = TypeVar("T")


@dataclass
class Held:
    """What the store is known to hold of one run."""

    run_id: str
    tags: dict[str, str]
    params: set[str]
    status: tuple[str, int | None]
    """And the time of its end."""
    corpora: set[str]
    """Fingerprints of its data set inputs."""
    models: set[str]
    """Ids of the models that it is said to have made."""
    points: Counter[Place] = field(default_factory=Counter)
    """How many values each metric has at each place."""
    files: dict[Path, list[Any]] = field(default_factory=dict)
    """Artifacts that this process has sent, as they were then."""


class Contact:
    """Not for longer than the first fault: after one, what arrived is no longer known, and a new contact reads it."""

    def __init__(self, store: Store, experiment: str) -> None:
        self._client: MlflowClient = connect(store)
        self._experiment_id = _experiment_id(self._client, store, experiment)
        self._stored = self._search()
        self._models = Models(self._client, self._experiment_id)
        self._held: dict[str, Held] = {}

    @property
    def run_ids(self) -> set[str]:
        """The experiment's runs, but those deleted by hand."""
        return {run.info.run_id for run in self._stored.values() if not _is_deleted(run)}

    def send(self, run: Run, tags: dict[str, str], history: History) -> tuple[str, int]:
        """Sends what the store lacks of a run, but for its files: its state last, so that a finished run has all its
        metrics.

        Returns:
            The run's id, and how many metric values were sent.
        """
        held = self._hold(tags, history)
        self._send_tags_and_params(held, tags, run.params())
        self._send_corpus(held, run.corpus())
        sent = self._send_model(held, history) + self._send_points(held, history.points)
        self._send_status(held, history)
        return held.run_id, sent

    def send_files(self, run: Run, tags: dict[str, str]) -> None:
        """Sends the files of a run that was sent, if they are new or have changed since this contact sent them."""
        held = self._held[identity(tags)]
        for artifact in run.files():
            now = stamp(artifact.path)
            if held.files.get(artifact.path) != now:
                if artifact.kept_back:
                    self._client.log_text(held.run_id, artifact.shared(), artifact.path.name)
                else:
                    self._client.log_artifact(held.run_id, str(artifact.path))
                held.files[artifact.path] = now

    def _hold(self, tags: dict[str, str], history: History) -> Held:
        name = identity(tags)
        if name not in self._held:
            if name not in self._stored:
                self._stored = self._search()  # another process may have made it by now
            if name not in self._stored:
                self._stored[name] = self._client.create_run(self._experiment_id, history.start, tags)
            elif _is_deleted(self._stored[name]):
                self._client.restore_run(self._stored[name].info.run_id)
            self._held[name] = self._read(self._stored[name])
        return self._held[name]

    def _search(self) -> dict[str, "StoredRun"]:
        """The experiment's runs by identity, deleted ones too. Of two with the same identity, the same one is taken
        every time."""
        from mlflow.entities import ViewType

        found: list[StoredRun] = []
        token: str | None = ""
        while token is not None:
            page = self._client.search_runs([self._experiment_id], run_view_type=ViewType.ALL, page_token=token or None)
            found += page
            token = page.token or None
        found.sort(key=lambda run: (not _is_deleted(run), run.info.run_id))
        return {identity(run.data.tags): run for run in found}

    def _read(self, run: "StoredRun") -> Held:
        info, data = run.info, run.data
        inputs = run.inputs.dataset_inputs if run.inputs else []
        outputs = run.outputs.model_outputs if run.outputs else []
        held = Held(
            info.run_id,
            dict(data.tags),
            set(data.params),
            (info.status, info.end_time),
            {each.dataset.digest for each in inputs},
            {each.model_id for each in outputs},
        )
        for name in data.metrics:
            history = self._client.get_metric_history(info.run_id, name)
            held.points.update(place(name, metric.step, metric.timestamp) for metric in history)
        return held

    def _send_tags_and_params(self, held: Held, tags: dict[str, str], params: dict[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        changed = {name: value for name, value in tags.items() if held.tags.get(name) != value}
        if COLOUR in held.tags:
            changed.pop(COLOUR, None)
        new_tags = [RunTag(name, value) for name, value in changed.items()]
        if new_tags:
            self._client.log_batch(held.run_id, tags=new_tags, synchronous=True)
            held.tags |= changed
        # A parameter can be written once. A key's parameters never change, so those that are there are left alone.
        new_params = [Param(name, value) for name, value in params.items() if name not in held.params]
        for batch in _batches(new_params, _PARAMS_A_BATCH):
            self._client.log_batch(held.run_id, params=batch, synchronous=True)
        held.params |= params.keys()

    def _send_corpus(self, held: Held, corpus: Corpus | None) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if corpus is None or corpus.fingerprint in held.corpora:
            return
        dataset = Dataset(corpus.name, corpus.fingerprint, "tfscale", corpus.source, profile=corpus.profile)
        self._client.log_inputs(held.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        held.corpora.add(corpus.fingerprint)

    def _send_model(self, held: Held, history: History) -> int:
        """Sends a finished stage's model, and with it the metrics that are the model's own."""
        if history.model is None:
            return 0
        sent = Counter(_places(self._models.send(held.run_id, held.models, history.model)))
        new = sent - held.points
        held.points |= sent
        return new.total()

    def _send_points(self, held: Held, points: Iterable[Point]) -> int:
        from mlflow.entities import Metric

        lacking = _lacking(points, held.points)
        for batch in _batches(lacking, _METRICS_A_BATCH):
            metrics = [Metric(point.name, point.value, point.time, point.step) for point in batch]
            self._client.log_batch(held.run_id, metrics=metrics, synchronous=True)
            held.points.update(_places(batch))
        return len(lacking)

    def _send_status(self, held: Held, history: History) -> None:
        if history.status == "RUNNING":
            if held.status[0] != "RUNNING":
                self._client.update_run(held.run_id, "RUNNING")
                held.status = ("RUNNING", None)
        elif held.status != (history.status, history.end):
            self._client.set_terminated(held.run_id, history.status, history.end)
            held.status = (history.status, history.end)


def _experiment_id(client: "MlflowClient", store: Store, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return str(client.create_experiment(name, store.artifacts, experiment_tags()))
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)  # its name stays taken, so a new one cannot be made
    for tag, value in experiment_tags().items():
        if tag not in experiment.tags:  # what people have changed stays
            client.set_experiment_tag(experiment.experiment_id, tag, value)
    return str(experiment.experiment_id)


def _is_deleted(run: "StoredRun") -> bool:
    return bool(run.info.lifecycle_stage == "deleted")


def _lacking(points: Iterable[Point], held: Counter[Place]) -> list[Point]:
    """The points that are not among those held. Values at one place are told apart by their order alone."""
    seen: Counter[Place] = Counter()
    lacking = []
    for point, where in zip(points, _places(points), strict=True):
        seen[where] += 1
        if seen[where] > held[where]:
            lacking.append(point)
    return lacking


def _places(points: Iterable[Point]) -> list[Place]:
    return [place(point.name, point.step, point.time) for point in points]


def _batches(items: Sequence[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
