"""Stage folders in the form in which training writes them, and readers of a real tracking store, for tests of the
mirror."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tfscale.models.parameter_tokens import TokenGroup
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.optimizers.adamw import AdamW
from tfscale.plan.arms import Arm
from tfscale.stage.events import EventLog
from tfscale.stage.folder import Stage
from tfscale.stage.spec import DataSpec, LearningRateSchedule, RunSpec, StageSpec
from tfscale.tracking.mlflow.tracker import MlflowTracker, ui_command, ui_environment
from tfscale.tracking.sync import Session
from tfscale.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

T = TypeVar("T")

BATCH = 1000
GFLOPS_A_STEP = 3


def spec(label: str, parent: str | None = None) -> StageSpec:
    tokens = (TokenGroup(8, 8**0.5),)
    return StageSpec(
        label=label,
        model=TokenFormerConfig(2, 16, 2, 64, 8, tokens, tokens, tokens),
        data=DataSpec("corpus", 0, 0, 512),
        tokens=10 * BATCH,
        batch_tokens=BATCH,
        optimizer=AdamW(lr=3e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0),
        lr_schedule=LearningRateSchedule("cosine", 0, 0.0, 0.1, 0.0),
        seed=0,
        run=RunSpec(data_dir="data"),
        parent=parent,
        growth={"name": "exact", "tau": "keep"} if parent else None,
    )


def stage(folder: Path, size: str, parent: str | None = None) -> Stage:
    path = folder / "stages" / f"label-{size}"
    if not path.exists():
        path.mkdir(parents=True)
        (path / "stage.yaml").write_text(json.dumps({"size": size}))
    return Stage(size, f"key-{size}", path, spec(f"label-{size}", parent))


def chain(folder: Path) -> Arm:
    base = stage(folder, "1M")
    return Arm("progressive", "Grown", "chain", (base, stage(folder, "2M", base.key)))


def scratch(folder: Path) -> Arm:
    return Arm("scratch", "From scratch", "scratch", (stage(folder, "1M"), stage(folder, "4M")))


def train(part: Stage, steps: range, after: int = 0, noise: float = 0.0) -> None:
    """Write the events of training steps, with an evaluation at every second one, for a stage whose lineage had `after`
    steps before."""
    log = EventLog(part.path)
    log.write("start", step=steps.start - 1, time=at(after, steps.start - 1) + noise)
    for step in steps:
        totals = {
            "tokens": step * BATCH,
            "total_tokens": (after + step) * BATCH,
            "total_flops": (after + step) * GFLOPS_A_STEP * 1e9,
            "total_seconds": after + step + noise,
            "time": at(after, step) + noise,
        }
        log.write("train", step=step, loss=loss(after + step), lr=0.1, **totals)
        if step % 2 == 0:
            log.write("eval", step=step, loss=loss(after + step), perplexity=100.0 - after - step, **totals)
    log.close()


def finish(part: Stage, after: int = 0) -> None:
    end(part, "done", after)
    (part.path / "done.json").write_text("{}")


def end(part: Stage, reason: str, after: int = 0) -> None:
    log = EventLog(part.path)
    log.write("end", step=10, reason=reason, time=at(after, 10) + 0.5)
    log.close()


def finished_chain(folder: Path) -> Arm:
    arm = chain(folder)
    base, child = arm.stages
    train(base, range(1, 11))
    finish(base)
    train(child, range(1, 11), after=10)
    finish(child, after=10)
    return arm


def evaluate(part: Stage, second: int = 0, **measured: float) -> None:
    """Write the evaluations of a finished stage, as `tfscale eval` does: of a text, and of a task if `measured` is
    given."""
    time = f"2026-01-02T03:04:{second:02d}+00:00"
    text = {"kind": "text", "name": "my text.txt", "sha256": "f", "loss": 1.0, "perplexity": 2.75, "bits_per_byte": 0.5}
    task = {"kind": "task", "name": "lambada", "version": 1, "samples": 9, "metrics": measured}
    entries = [{**entry, "time": time} for entry in ((text, task) if measured else (text,))]
    (part.path / "evaluations.json").write_text(json.dumps({"format": 1, "evaluations": entries}))


def at(after: int, step: int) -> float:
    return 1_700_000_000.25 + after + step


def loss(step: int) -> float:
    return 5.0 - step / 10


def sync(tracker: Tracker, experiment: str, arms: Iterable[Arm], comparison: Path | None = None) -> int:
    """Sync once, as a process without earlier state."""
    return Session(tracker, experiment).sync(arms, comparison)


@cache
def client(store: MlflowTracker) -> "MlflowClient":
    return store.client()


def experiment(store: MlflowTracker, name: str = "tiny") -> Any:
    found = client(store).get_experiment_by_name(name)
    assert found is not None
    return found


def runs(store: MlflowTracker, name: str = "tiny") -> "list[Run]":
    return list(client(store).search_runs([experiment(store, name).experiment_id]))


def run(store: MlflowTracker, size: str | None = None, arm: str = "progressive", name: str = "tiny") -> "Run":
    """Return the only run of a stage, or of the arm itself."""
    tags = {"tfscale.arm": arm, "tfscale.size": size}
    (found,) = [r for r in runs(store, name) if all(r.data.tags.get(tag) == value for tag, value in tags.items())]
    return found


def values(store: MlflowTracker, run: "Run", metric: str) -> list[tuple[int, float]]:
    history = client(store).get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in history)


def models(store: MlflowTracker, name: str = "tiny") -> "dict[str, LoggedModel]":
    """Return the only model of each stage, by the key of the stage."""
    found = list(client(store).search_logged_models([experiment(store, name).experiment_id]))
    by_key = {model.tags["tfscale.key"]: model for model in found}
    assert len(by_key) == len(found)
    return by_key


def contents(store: MlflowTracker, name: str = "tiny") -> Counter[tuple[Any, ...]]:
    """Return the counts of all points (owner, metric, step, value) and all links of runs to models and datasets in an
    experiment."""
    owned: Counter[tuple[Any, ...]] = Counter()
    for found in runs(store, name):
        owner = f"{found.data.tags.get('tfscale.arm')} {found.data.tags.get('tfscale.size')}"
        owned.update((owner, metric, *point) for metric in found.data.metrics for point in values(store, found, metric))
        owned.update((owner, "input", each.dataset.digest) for each in found.inputs.dataset_inputs)
        owned.update((owner, "output") for _ in found.outputs.model_outputs)
    for key, model in models(store, name).items():
        owned.update((key, metric.key, metric.step, metric.value) for metric in model.metrics or [])
    return owned


def points(store: MlflowTracker, name: str = "tiny") -> int:
    """Return the number of recorded values of all runs."""
    return sum(len(values(store, found, metric)) for found in runs(store, name) for metric in found.data.metrics)


def cursor_file(store: MlflowTracker) -> Path:
    (path,) = store.folder.glob("*.json")
    return path


def start_python(*lines: str) -> "subprocess.Popen[str]":
    """Start a Python process that runs these lines after importing this module."""
    code = "\n".join(("import sys", "from tracked import *", *lines))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(store: MlflowTracker, port: int) -> Iterator[None]:
    """Run MLflow's server on a store within the context. It answers after some seconds."""
    server = subprocess.Popen(ui_command(store, port=port), env=ui_environment(), start_new_session=True)
    try:
        yield
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(60)


def fetch(port: int) -> str | None:
    """Return the front page of the server, or None while it does not answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    with closing(connection), suppress(OSError):
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    return None


def wait_for(what: Callable[[], T | None]) -> T:
    for _ in range(600):
        if value := what():
            return value
        time.sleep(0.2)
    raise AssertionError("it never came")
