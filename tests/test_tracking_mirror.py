"""Stage folders mirrored into real MLflow stores."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from tfscale.models.config import TokenFormerConfig, TokenGroup
from tfscale.models.counts import parameters
from tfscale.schedule.arms import Arm, ArmStage
from tfscale.tracking.lock import locked
from tfscale.tracking.mirror import Mirror
from tfscale.tracking.points import CURVE, ENDPOINTS
from tfscale.tracking.store import Store, StoreError, connect, store_at
from tfscale.tracking.sync import Session, log_artifacts, sync
from tfscale.tracking.ui import ui_command, ui_environment
from tfscale.training.events import EventLog
from tfscale.training.spec import DataSpec, OptimizerSpec, RunSpec, ScheduleSpec, StageSpec

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")

BATCH = 1000
GFLOPS_A_STEP = 3


# Stage folders, written as training writes them


def spec(label: str, parent: str | None = None) -> StageSpec:
    tokens = (TokenGroup(8, 8**0.5),)
    return StageSpec(
        label=label,
        model=TokenFormerConfig(2, 16, 2, 64, 8, tokens, tokens, tokens),
        data=DataSpec("corpus", 0, 0, 512),
        tokens=10 * BATCH,
        batch_tokens=BATCH,
        optimizer=OptimizerSpec(3e-3, 0.9, 0.95, 1e-8, 0.1, 1.0),
        schedule=ScheduleSpec("cosine", 0, 0.0, 0.1, 0.0),
        seed=0,
        run=RunSpec("data"),
        parent=parent,
        growth={"name": "exact", "tau": "keep"} if parent else None,
    )


def stage(folder: Path, size: str, parent: str | None = None) -> ArmStage:
    path = folder / "stages" / f"label-{size}"
    if not path.exists():
        path.mkdir(parents=True)
        (path / "stage.yaml").write_text(json.dumps({"size": size}))
    return ArmStage(size, f"key-{size}", path, spec(f"label-{size}", parent))


def chain(folder: Path) -> Arm:
    base = stage(folder, "1M")
    return Arm("progressive", "Grown", "chain", (base, stage(folder, "2M", base.key)))


def scratch(folder: Path) -> Arm:
    return Arm("scratch", "From scratch", "scratch", (stage(folder, "1M"), stage(folder, "4M")))


def train(part: ArmStage, steps: range, after: int = 0, noise: float = 0.0) -> None:
    """Steps of a stage whose lineage had made `after` steps before; an evaluation at every second one."""
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


def finish(part: ArmStage, after: int = 0) -> None:
    end(part, "done", after)
    (part.path / "done.json").write_text("{}")


def end(part: ArmStage, reason: str, after: int = 0) -> None:
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


def at(after: int, step: int) -> float:
    return 1_700_000_000.25 + after + step


def loss(step: int) -> float:
    return 5.0 - step / 10


# What a store holds


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = store_at(tmp_path_factory.mktemp("schema"))
    connect(store)
    assert store.database is not None
    return store.database


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Store:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return store_at(tmp_path)


@cache
def client(store: Store) -> "MlflowClient":
    return connect(store)


def experiment(store: Store, name: str = "tiny") -> Any:
    found = client(store).get_experiment_by_name(name)
    assert found is not None
    return found


def runs(store: Store, name: str = "tiny") -> "list[Run]":
    return list(client(store).search_runs([experiment(store, name).experiment_id]))


def run(store: Store, size: str | None = None, arm: str = "progressive", name: str = "tiny") -> "Run":
    """The one run of a stage, or of the arm itself."""
    tags = {"tfscale.arm": arm, "tfscale.size": size}
    (found,) = [r for r in runs(store, name) if all(r.data.tags.get(tag) == value for tag, value in tags.items())]
    return found


def values(store: Store, run: "Run", metric: str) -> list[tuple[int, float]]:
    history = client(store).get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in history)


def contents(store: Store, name: str = "tiny") -> Counter[tuple[str, str, int, float]]:
    """Every point of an experiment: whose, which metric, step, value."""
    return Counter(
        (f"{found.data.tags.get('tfscale.arm')} {found.data.tags.get('tfscale.size')}", metric, step, value)
        for found in runs(store, name)
        for metric in found.data.metrics
        for step, value in values(store, found, metric)
    )


def cursor_file(store: Store) -> Path:
    (path,) = store.folder.glob("*.json")
    return path


def start_python(*lines: str) -> "subprocess.Popen[str]":
    """Another process that knows this module."""
    code = "\n".join(("import sys", "from test_tracking_mirror import *", *lines))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


# The mirror


def test_an_arm_is_a_run_and_its_stages_are_its_children(store: Store, tmp_path: Path) -> None:
    sync(store, "tiny", [finished_chain(tmp_path)])
    arm, base, child = run(store), run(store, "1M"), run(store, "2M")
    assert len(runs(store)) == 3
    assert {base.data.tags["mlflow.parentRunId"], child.data.tags["mlflow.parentRunId"]} == {arm.info.run_id}
    assert (arm.info.run_name, child.info.run_name) == ("progressive", "label-2M")
    expected = {"key": "key-2M", "parent": "key-1M", "growth": "exact", "family": "tokenformer", "label": "label-2M"}
    assert expected.items() <= {tag.removeprefix("tfscale."): value for tag, value in child.data.tags.items()}.items()
    assert "tfscale.growth" not in base.data.tags


def test_metrics_stand_at_the_tokens_of_the_lineage_and_at_the_time_of_the_event(store: Store, tmp_path: Path) -> None:
    sync(store, "tiny", [finished_chain(tmp_path)])
    child = run(store, "2M")
    assert values(store, child, "train/loss") == [(n * BATCH, loss(n)) for n in range(11, 21)]
    assert values(store, child, "heldout/perplexity") == [(n * BATCH, 100.0 - n) for n in range(12, 21, 2)]
    first = min(client(store).get_metric_history(child.info.run_id, "train/loss"), key=lambda point: point.step)
    assert first.timestamp == int(at(10, 1) * 1000)


def test_the_chain_has_one_curve_over_compute(store: Store, tmp_path: Path) -> None:
    sync(store, "tiny", [finished_chain(tmp_path)])
    whole = [(n * GFLOPS_A_STEP, 100.0 - n) for n in range(2, 21, 2)]
    assert values(store, run(store), CURVE) == whole
    assert values(store, run(store, "2M"), CURVE) == whole[5:]
    assert values(store, run(store), ENDPOINTS) == [whole[4], whole[9]]


def test_runs_of_their_own_have_curves_of_their_own_and_common_end_points(store: Store, tmp_path: Path) -> None:
    arm = scratch(tmp_path)
    train(arm.stages[0], range(1, 5))
    train(arm.stages[1], range(1, 9))
    finish(arm.stages[1])
    sync(store, "tiny", [arm])
    parent = run(store, arm="scratch")
    assert CURVE not in parent.data.metrics
    assert len(values(store, run(store, "1M", "scratch"), CURVE)) == 2
    assert values(store, parent, ENDPOINTS) == [(8 * GFLOPS_A_STEP, 92.0)]  # of the stage that is done


def test_parameters_and_artifacts_are_those_of_the_stage(store: Store, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    (arm.stages[1].path / "growth.json").write_text("{}")
    sync(store, "tiny", [arm])
    child = run(store, "2M")
    model = arm.stages[1].spec.model
    expected = {
        "parameters": str(parameters(model)),
        "model.ffn.0.n": "8",
        "optimizer.lr": "0.003",
        "growth.tau": "keep",
    }
    assert expected.items() <= child.data.params.items()
    assert not [name for name in child.data.params if name.startswith(("run.", "label"))]
    names = {file.path for file in client(store).list_artifacts(child.info.run_id)}
    assert names == {"stage.yaml", "growth.json", "done.json"}
    assert child.info.artifact_uri.startswith(f"file://{tmp_path}/mlartifacts/")


def test_more_parameters_and_longer_ones_than_mlflow_takes_at_once(store: Store, tmp_path: Path) -> None:
    arm = chain(tmp_path)
    many = {"name": "own", "long": "x" * 9000, **{f"setting_{n}": n for n in range(250)}}
    base = replace(arm.stages[0], spec=replace(arm.stages[0].spec, growth=many))
    train(base, range(1, 3))
    sync(store, "tiny", [replace(arm, stages=(base,))])
    params = run(store, "1M").data.params
    assert len([name for name in params if name.startswith("growth.setting_")]) == 250
    assert params["growth.long"] == "x" * 6000


def test_more_points_than_a_batch_holds(store: Store, tmp_path: Path) -> None:
    arm = chain(tmp_path)
    train(arm.stages[0], range(1, 401))
    sent = sync(store, "tiny", [arm])
    stored = contents(store)
    assert sent == stored.total() > 2000
    assert set(stored.values()) == {1}


def test_a_finished_schedule_does_not_even_open_the_store(store: Store, tmp_path: Path) -> None:
    sync(store, "tiny", [finished_chain(tmp_path)])
    process = start_python(
        f"sent = sync(store_at(Path({str(tmp_path)!r})), 'tiny', [chain(Path({str(tmp_path)!r}))])",
        "assert sent == 0",
        "assert not {'mlflow', 'torch'} & sys.modules.keys()",
    )
    output, _ = process.communicate()
    assert process.returncode == 0, output


def test_doing_it_again_changes_nothing(store: Store, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    sync(store, "tiny", [arm])
    before = contents(store)
    assert sync(store, "tiny", [arm]) == 0
    cursor_file(store).unlink()
    assert sync(store, "tiny", [arm]) == 0
    assert (contents(store), len(runs(store))) == (before, 3)


def test_a_crash_between_the_batch_and_the_cursor_doubles_nothing(store: Store, tmp_path: Path) -> None:
    arm = chain(tmp_path)
    train(arm.stages[0], range(1, 5))
    sync(store, "tiny", [arm])
    as_it_was = cursor_file(store).read_bytes()
    train(arm.stages[0], range(5, 9))
    sync(store, "tiny", [arm])
    before = contents(store)
    cursor_file(store).write_bytes(as_it_was)
    assert sync(store, "tiny", [arm]) == 0
    assert contents(store) == before
    assert set(before.values()) == {1}


def test_steps_done_again_after_a_resume_are_not_doubled(store: Store, tmp_path: Path) -> None:
    arm = chain(tmp_path)
    session = Session(store, "tiny")
    train(arm.stages[0], range(1, 8))
    session.sync([arm])
    first = run(store, "1M").info.run_id
    train(arm.stages[0], range(5, 11), noise=0.125)
    finish(arm.stages[0])
    session.sync([arm])
    assert run(store, "1M").info.run_id == first
    assert values(store, run(store, "1M"), "train/loss") == [(n * BATCH, loss(n)) for n in range(1, 11)]
    assert [step for step, _ in values(store, run(store), CURVE)] == [n * GFLOPS_A_STEP for n in range(2, 11, 2)]
    cursor_file(store).unlink()
    assert sync(store, "tiny", [arm]) == 0


def test_evaluations_that_share_a_gflop_are_neither_lost_nor_doubled(store: Store, tmp_path: Path) -> None:
    arm = chain(tmp_path)
    log = EventLog(arm.stages[0].path)
    for n in range(4):
        totals = {"total_tokens": n * BATCH, "total_flops": n * 1e8, "time": at(0, n)}
        log.write("eval", step=n, perplexity=9.0 - n, **totals)
        sync(store, "tiny", [arm])
    cursor_file(store).unlink()
    sync(store, "tiny", [arm])
    assert values(store, run(store), CURVE) == [(0, 6.0), (0, 7.0), (0, 8.0), (0, 9.0)]


def test_end_points_that_share_a_gflop_all_arrive_whichever_stage_ends_first(store: Store, tmp_path: Path) -> None:
    arm = scratch(tmp_path)
    for n, part in reversed(list(enumerate(arm.stages))):
        log = EventLog(part.path)
        log.write("eval", step=1, perplexity=9.0 - n, total_tokens=BATCH, total_flops=1e8, time=at(10 - n, 0))
        finish(part, after=10 - n)
        sync(store, "tiny", [arm])
    assert values(store, run(store, arm="scratch"), ENDPOINTS) == [(0, 8.0), (0, 9.0)]


def test_a_deleted_store_is_written_again_whole(store: Store, tmp_path: Path, empty_database: Path) -> None:
    arm = finished_chain(tmp_path)
    session = Session(store, "tiny")
    session.sync([arm])
    before = contents(store)
    assert store.database is not None
    shutil.copy(empty_database, tmp_path / "aside.db")
    (tmp_path / "aside.db").replace(store.database)
    shutil.rmtree(tmp_path / "mlartifacts")
    session.sync([arm])
    assert contents(store) == before
    assert len(client(store).list_artifacts(run(store, "2M").info.run_id)) == 2


def test_a_store_deleted_under_a_running_mirror_is_made_anew(store: Store, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    session = Session(store, "tiny")
    session.sync([arm])
    before = contents(store)
    assert store.database is not None
    store.database.unlink()
    session.sync([arm])
    assert contents(store) == before
    assert not store.lacks({found.info.run_id for found in runs(store)})  # in the file, not in the one deleted


def test_runs_and_experiments_deleted_by_hand_come_back(store: Store, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    sync(store, "tiny", [arm])
    before = contents(store)
    client(store).delete_run(run(store).info.run_id)
    sync(store, "tiny", [arm])
    assert contents(store) == before
    assert run(store, "2M").data.tags["mlflow.parentRunId"] == run(store).info.run_id
    client(store).delete_experiment(experiment(store).experiment_id)
    sync(store, "tiny", [arm])
    assert contents(store) == before


def test_a_stage_that_arms_and_schedules_share_has_a_run_in_each(store: Store, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    longer = Arm("trained_on", "Trained on", "trained_on", arm.stages[:1])
    sync(store, "tiny", [arm, longer])
    sync(store, "other", [arm])
    assert run(store, "1M", "trained_on").data.tags["mlflow.parentRunId"] == run(store, arm="trained_on").info.run_id
    assert [len(runs(store, name)) for name in ("tiny", "other")] == [5, 3]
    assert values(store, run(store, "1M", "trained_on"), CURVE) == values(store, run(store, "1M", name="other"), CURVE)


def test_arms_that_join_later_leave_the_others_as_they_are(store: Store, tmp_path: Path) -> None:
    arm, later = finished_chain(tmp_path), scratch(tmp_path)
    sync(store, "tiny", [arm])
    sent = contents(store).total()
    train(later.stages[1], range(1, 3))
    new = sync(store, "tiny", [later])
    assert contents(store).total() == sent + new
    assert sync(store, "tiny", [arm, later]) == 0


def test_the_status_is_what_the_folder_says(store: Store, tmp_path: Path) -> None:
    arm = chain(tmp_path)
    base, child = arm.stages
    session = Session(store, "tiny")

    def statuses() -> list[str]:
        session.sync([arm])
        return [run(store, "1M").info.status, run(store).info.status]

    train(base, range(1, 5))
    assert statuses() == ["RUNNING", "RUNNING"]
    end(base, "preempted")
    assert statuses() == ["KILLED", "KILLED"]
    train(base, range(5, 7))
    assert statuses() == ["RUNNING", "RUNNING"]
    end(base, "failed")
    assert statuses() == ["FAILED", "FAILED"]
    train(base, range(7, 11))
    finish(base)
    assert statuses() == ["FINISHED", "RUNNING"]  # the arm's next stage has not begun
    train(child, range(1, 11), after=10)
    finish(child, after=10)
    assert statuses() == ["FINISHED", "FINISHED"]
    assert run(store, "2M").info.start_time == int(at(10, 0) * 1000)
    assert run(store, "2M").info.end_time == int(at(10, 10) * 1000 + 500)


def test_an_arm_that_has_not_begun_has_no_run(store: Store, tmp_path: Path) -> None:
    assert sync(store, "tiny", [chain(tmp_path)]) == 0
    assert client(store).get_experiment_by_name("tiny") is None


def test_mlflow_settings_in_the_environment_do_not_interfere(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = client(store).create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", foreign.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    sync(store, "tiny", [finished_chain(tmp_path)])
    assert len(runs(store)) == 3
    assert client(store).get_run(foreign.info.run_id).data.metrics == {}


def test_figures_and_tables_go_to_one_run_named_comparison(store: Store, tmp_path: Path) -> None:
    figure, table = tmp_path / "figure.svg", tmp_path / "table.csv"
    figure.write_text("<svg/>")
    table.write_text("a,b")
    log_artifacts(store, "tiny", [figure, table])
    figure.write_text("<svg>new</svg>")
    log_artifacts(store, "tiny", [figure, table])
    (comparison,) = runs(store)
    assert (comparison.info.run_name, comparison.info.status) == ("comparison", "FINISHED")
    downloaded = client(store).download_artifacts(comparison.info.run_id, "figure.svg")
    assert Path(downloaded).read_text() == "<svg>new</svg>"
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        log_artifacts(store, "tiny", [tmp_path / "missing.png"])


def test_processes_that_meet_at_a_new_store_make_it_once(tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    line = f"sync(store_at(Path({str(tmp_path)!r})), 'tiny', [chain(Path({str(tmp_path)!r}))])"
    processes = [start_python(line), start_python(line.replace("tiny", "other")), start_python(line)]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    store = store_at(tmp_path)
    assert contents(store) == contents(store, "other")
    assert set(contents(store).values()) == {1}
    assert sync(store, "tiny", [arm]) == 0


def test_a_store_that_cannot_be_opened_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(StoreError, match=r"mlflow\.db: unable to open database file"):
        sync(store_at(tmp_path), "tiny", [finished_chain(tmp_path)])


def test_artifacts_that_find_no_place_hold_up_no_metrics(store: Store, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    (tmp_path / "mlartifacts").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="artifacts of label-1M"):
        sync(store, "tiny", [arm])
    before = contents(store)
    assert {run(store, size).info.status for size in (None, "1M", "2M")} == {"FINISHED"}
    (tmp_path / "mlartifacts").unlink()
    assert sync(store, "tiny", [arm]) == 0
    assert contents(store) == before
    assert len(client(store).list_artifacts(run(store, "2M").info.run_id)) == 2


# The thread


def test_the_mirror_follows_training_and_stops_when_everything_has_arrived(store: Store, tmp_path: Path) -> None:
    arm = chain(tmp_path)
    train(arm.stages[0], range(1, 6))
    mirror = Mirror(store, "tiny", [arm], seconds=3600)
    mirror.start()
    first = wait_for(lambda: [path.read_bytes() for path in store.folder.glob("*.json")])
    train(arm.stages[0], range(6, 11))
    mirror.poke()
    wait_for(lambda: [cursor_file(store).read_bytes()] != first)
    assert len(values(store, run(store, "1M"), "train/loss")) == 10
    finish(arm.stages[0])
    assert mirror.stop(timeout=60) is None
    assert mirror.fault is None
    assert run(store, "1M").info.status == "FINISHED"


def test_a_mirror_that_cannot_end_in_time_says_so_and_lets_go(store: Store, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    sync(store, "tiny", [arm])
    train(arm.stages[0], range(11, 12))
    lock = cursor_file(store).with_suffix(".lock")
    with locked(lock):
        mirror = Mirror(store, "tiny", [arm])
        mirror.start()
        assert mirror.stop(timeout=0.2) == "MLflow was still being written after 0.2 s"
    assert mirror.stop(timeout=60) is None


def test_a_fault_of_our_own_is_kept_until_the_mirror_stops(store: Store, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    broken = replace(arm.stages[1], spec=replace(arm.stages[1].spec, growth={"no": "name"}))
    mirror = Mirror(store, "tiny", [replace(arm, stages=(broken,))])
    mirror.start()
    with pytest.raises(KeyError, match="name"):
        mirror.stop(timeout=60)
    assert mirror.fault is not None


def test_a_server_that_is_away_is_caught_up_and_its_page_is_served(store: Store, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    remote = store_at(tmp_path, f"http://127.0.0.1:{port}")
    mirror = Mirror(remote, "tiny", [arm], seconds=0.2)
    mirror.start()
    wait_for(lambda: mirror.fault)
    assert mirror.fault is not None
    assert mirror.fault.startswith(f"MLflow at http://127.0.0.1:{port}: ")
    with serving(store, port):
        page = wait_for(lambda: fetch(port))
        assert "<title>MLflow</title>" in page
        mirror.poke()
        wait_for(lambda: mirror.fault is None)
        train(arm.stages[1], range(11, 13), after=10)
        assert mirror.stop(timeout=120) is None
        sync_alone = replace(remote, folder=tmp_path / "no cursor yet")
        assert sync(sync_alone, "tiny", [arm]) == 0
        run_id = run(store, "2M").info.run_id
        assert "done.json" in {file.path for file in client(remote).list_artifacts(run_id)}
    assert set(contents(store).values()) == {1}


@contextmanager
def serving(store: Store, port: int) -> Iterator[None]:
    server = subprocess.Popen(ui_command(store, port=port), env=ui_environment(), start_new_session=True)
    try:
        yield
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(60)


def fetch(port: int) -> str | None:
    """The server's front page; None while it does not answer."""
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
