"""The mirror and MLflow's page, with a real server over HTTP and a real browser."""

import os
from pathlib import Path

from browser import Browser, find_browser
from mlflow_page import open_compute_chart
from tracked import (
    client,
    contents,
    experiment,
    fetch,
    finished_chain,
    free_port,
    models,
    run,
    serving,
    sync,
    train,
    wait_for,
)

from tfscale.tracking.mirror import Mirror
from tfscale.tracking.mlflow.tracker import MlflowTracker, experiment_id


def test_a_server_that_is_away_is_caught_up_and_its_page_draws_the_compute_chart(
    store: MlflowTracker, tmp_path: Path
) -> None:
    arm, port = finished_chain(tmp_path), free_port()
    remote = MlflowTracker(tmp_path, f"http://127.0.0.1:{port}")
    mirror = Mirror(remote, "tiny", [arm], seconds=0.2)
    mirror.start()
    wait_for(lambda: mirror.fault)
    assert mirror.fault is not None
    assert mirror.fault.startswith(f"MLflow at http://127.0.0.1:{port}: ")
    with serving(store, port):
        assert "<title>MLflow</title>" in wait_for(lambda: fetch(port))
        wait_for(lambda: mirror.fault is None)
        train(arm.stages[1], range(11, 13), after=10)
        assert mirror.stop(timeout=120) is None
        without_cursor = MlflowTracker(tmp_path / "no cursor yet", remote.uri)
        assert sync(without_cursor, "tiny", [arm]) == 0
        assert "done.json" in {file.path for file in client(remote).list_artifacts(run(store, "2M").info.run_id)}
        assert {model.status for model in models(remote).values()} == {"READY"}
        draws_the_chart(store, port)
    assert set(contents(store).values()) == {1}


def draws_the_chart(store: MlflowTracker, port: int) -> None:
    executable = find_browser()
    assert executable or "TFSCALE_REQUIRE_BROWSER" not in os.environ
    found = experiment_id(store, "tiny")
    assert found == experiment(store).experiment_id
    if executable:
        with Browser(executable) as browser:
            open_compute_chart(f"http://127.0.0.1:{port}", found, browser)
