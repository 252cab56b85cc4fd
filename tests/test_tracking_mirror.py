"""The mirror that runs beside training."""

from dataclasses import replace
from pathlib import Path

import pytest
from tracked import chain, cursor_file, finish, finished_chain, run, sync, train, values, wait_for

from tfscale.files import locked
from tfscale.tracking.mirror import Mirror
from tfscale.tracking.mlflow.tracker import MlflowTracker


def test_the_mirror_follows_training_and_stops_when_everything_has_arrived(
    store: MlflowTracker, tmp_path: Path
) -> None:
    arm = chain(tmp_path)
    train(arm.stages[0], range(1, 6))
    mirror = Mirror(store, "tiny", [arm], seconds=0.1)
    mirror.start()
    first = wait_for(lambda: [path.read_bytes() for path in store.folder.glob("*.json")])
    train(arm.stages[0], range(6, 11))
    wait_for(lambda: [cursor_file(store).read_bytes()] != first)
    assert len(values(store, run(store, "1M"), "train/loss")) == 10
    finish(arm.stages[0])
    assert mirror.stop(timeout=60) is None
    assert mirror.fault is None
    assert run(store, "1M").info.status == "FINISHED"


def test_a_mirror_that_cannot_end_in_time_says_so_and_lets_go(store: MlflowTracker, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    sync(store, "tiny", [arm])
    train(arm.stages[0], range(11, 12))
    lock = cursor_file(store).with_suffix(".lock")
    with locked(lock):
        mirror = Mirror(store, "tiny", [arm])
        mirror.start()
        assert mirror.stop(timeout=0.2) == f"{store}: the last sync did not finish within 0.2 s"
    assert mirror.stop(timeout=60) is None


def test_a_fault_of_our_own_is_kept_until_the_mirror_stops(store: MlflowTracker, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    broken = replace(arm.stages[1], spec=replace(arm.stages[1].spec, growth={"no": "name"}))
    mirror = Mirror(store, "tiny", [replace(arm, stages=(broken,))])
    mirror.start()
    with pytest.raises(KeyError, match="name"):
        mirror.stop(timeout=60)
    assert mirror.fault is not None
