"""Everything arrives exactly once, whatever happens to the mirror and to the store."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tracked import (
    BATCH,
    GFLOPS_A_STEP,
    at,
    chain,
    client,
    contents,
    cursor_file,
    evaluate,
    experiment,
    finish,
    finished_chain,
    loss,
    points,
    run,
    runs,
    scratch,
    start_python,
    sync,
    train,
    values,
)

from tfscale.plan.arms import Arm
from tfscale.stage.events import EventLog
from tfscale.tracking.mlflow.metrics import CURVE, ENDPOINTS
from tfscale.tracking.mlflow.tracker import MlflowTracker
from tfscale.tracking.sync import Session
from tfscale.tracking.tracker import TrackingError

REQUESTS = ("create_experiment", "create_run", "log_inputs", "log_batch", "create_logged_model", "log_outputs",
            "finalize_logged_model", "set_terminated")  # fmt: skip
"""Those that write."""


def test_a_finished_schedule_does_not_even_open_the_store(store: MlflowTracker, tmp_path: Path) -> None:
    sync(store, "tiny", [finished_chain(tmp_path)])
    process = start_python(
        f"sent = sync(MlflowTracker(Path({str(tmp_path)!r})), 'tiny', [chain(Path({str(tmp_path)!r}))])",
        "assert sent == 0",
        "assert not {'mlflow', 'torch'} & sys.modules.keys()",
    )
    output, _ = process.communicate()
    assert process.returncode == 0, output


def test_doing_it_again_changes_nothing(store: MlflowTracker, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    sync(store, "tiny", [arm])
    before = contents(store)
    assert sync(store, "tiny", [arm]) == 0
    cursor_file(store).unlink()
    assert sync(store, "tiny", [arm]) == 0
    assert (contents(store), len(runs(store))) == (before, 3)


def test_a_crash_between_the_batch_and_the_cursor_doubles_nothing(store: MlflowTracker, tmp_path: Path) -> None:
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


def test_a_crash_after_any_request_doubles_nothing_and_loses_nothing(
    store: MlflowTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = finished_chain(tmp_path)
    evaluate(arm.stages[1], acc=0.5)
    sync(store, "undisturbed", [arm])
    for request in REQUESTS:
        monkeypatch.setattr(MlflowClient, request, and_break_down(getattr(MlflowClient, request)))
    crashes = 0
    while not arrives(store, arm) and crashes < 100:
        crashes += 1
    assert crashes > 20
    assert contents(store) == contents(store, "undisturbed")
    assert {found.info.status for found in runs(store)} == {"FINISHED"}


def arrives(store: MlflowTracker, arm: Arm) -> bool:
    """Whether a sync that knows nothing of those before comes to its end."""
    for path in store.folder.glob("*.json"):
        path.unlink()
    try:
        sync(store, "tiny", [arm])
    except TrackingError:
        return False
    return True


def and_break_down(request: Callable[..., Any]) -> Callable[..., Any]:
    """A request that is made for real, and whose sender is gone before the answer."""

    def made(*values: Any, **named: Any) -> None:
        request(*values, **named)
        raise ConnectionAbortedError

    return made


def test_steps_done_again_after_a_resume_are_not_doubled(store: MlflowTracker, tmp_path: Path) -> None:
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


def test_evaluations_that_share_a_gflop_are_neither_lost_nor_doubled(store: MlflowTracker, tmp_path: Path) -> None:
    arm = chain(tmp_path)
    log = EventLog(arm.stages[0].path)
    for n in range(4):
        totals = {"total_tokens": n * BATCH, "total_flops": n * 1e8, "time": at(0, n)}
        log.write("eval", step=n, perplexity=9.0 - n, **totals)
        sync(store, "tiny", [arm])
    cursor_file(store).unlink()
    sync(store, "tiny", [arm])
    assert values(store, run(store), CURVE) == [(0, 6.0), (0, 7.0), (0, 8.0), (0, 9.0)]


def test_end_points_that_share_a_gflop_all_arrive_whichever_stage_ends_first(
    store: MlflowTracker, tmp_path: Path
) -> None:
    arm = scratch(tmp_path)
    for n, part in reversed(list(enumerate(arm.stages))):
        log = EventLog(part.path)
        log.write("eval", step=1, perplexity=9.0 - n, total_tokens=BATCH, total_flops=1e8, time=at(10 - n, 0))
        finish(part, after=10 - n)
        sync(store, "tiny", [arm])
    assert values(store, run(store, arm="scratch"), ENDPOINTS) == [(0, 8.0), (0, 9.0)]


def test_a_deleted_store_is_written_again_whole(store: MlflowTracker, tmp_path: Path, empty_database: Path) -> None:
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


def test_a_store_deleted_under_a_running_mirror_is_made_anew(store: MlflowTracker, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    session = Session(store, "tiny")
    session.sync([arm])
    before = contents(store)
    assert store.database is not None
    store.database.unlink()
    session.sync([arm])
    assert contents(store) == before
    assert not store.lacks({found.info.run_id for found in runs(store)})  # in the file, not in the one deleted


def test_runs_and_experiments_deleted_by_hand_come_back(store: MlflowTracker, tmp_path: Path) -> None:
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


def test_arms_that_join_later_leave_the_others_as_they_are(store: MlflowTracker, tmp_path: Path) -> None:
    arm, later = finished_chain(tmp_path), scratch(tmp_path)
    sync(store, "tiny", [arm])
    sent = points(store)
    train(later.stages[1], range(1, 3))
    new = sync(store, "tiny", [later])
    assert points(store) == sent + new
    assert sync(store, "tiny", [arm, later]) == 0


def test_processes_that_meet_at_a_new_store_make_it_once(tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    line = f"sync(MlflowTracker(Path({str(tmp_path)!r})), 'tiny', [chain(Path({str(tmp_path)!r}))])"
    processes = [start_python(line), start_python(line.replace("tiny", "other")), start_python(line)]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    store = MlflowTracker(tmp_path)
    assert contents(store) == contents(store, "other")
    assert set(contents(store).values()) == {1}
    assert sync(store, "tiny", [arm]) == 0


def test_a_store_that_cannot_be_opened_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(TrackingError, match=r"mlflow\.db: unable to open database file"):
        sync(MlflowTracker(tmp_path), "tiny", [finished_chain(tmp_path)])


def test_artifacts_that_find_no_place_hold_up_no_metrics(store: MlflowTracker, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    (tmp_path / "mlartifacts").write_text("a file where a folder should be")
    with pytest.raises(TrackingError, match="files of 1M Grown"):
        sync(store, "tiny", [arm])
    before = contents(store)
    assert {run(store, size).info.status for size in (None, "1M", "2M")} == {"FINISHED"}
    (tmp_path / "mlartifacts").unlink()
    assert sync(store, "tiny", [arm]) == 0
    assert contents(store) == before
    assert len(client(store).list_artifacts(run(store, "2M").info.run_id)) == 2
