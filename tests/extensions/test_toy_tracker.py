"""Tests that a tracker from outside the package receives every value once and is named in all messages about
tracking."""

import json
from pathlib import Path

import pytest
from extensions.toy_tracker import JsonLines, JsonLinesTracker
from tracked import chain, finish, finished_chain, sync, train
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.faults import UserFault
from tfscale.tracking.points import Point
from tfscale.tracking.tracker import TRACKERS, TrackingError


def stored(tracker: JsonLinesTracker) -> dict[str, list[Point]]:
    """Return the values by the name of their run."""
    runs = {}
    for folder in (Path(tracker.uri) / "tiny").iterdir():
        lines = (folder / "values.jsonl").read_text().splitlines()
        runs[json.loads((folder / "run.json").read_text())["name"]] = [Point(*json.loads(line)) for line in lines]
    return runs


def test_every_value_arrives_once_whatever_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, arm = JsonLinesTracker(tmp_path, None), chain(tmp_path)
    train(arm.stages[0], range(1, 5))
    assert sync(tracker, "tiny", [arm]) > 0
    train(arm.stages[0], range(5, 11))
    with monkeypatch.context() as broken:
        broken.setattr(JsonLines, "finish", lambda *_: 1 / 0)
        with pytest.raises(TrackingError, match=r"^JSON lines at /.*jsonl: division by zero$"):
            sync(tracker, "tiny", [arm])
    finish(arm.stages[0])
    sync(tracker, "tiny", [arm])
    before = stored(tracker)
    assert before.keys() == {"Grown", "1M Grown"}
    assert [point.at for point in before["1M Grown"] if point.name == "train/loss"] == [1000 * n for n in range(1, 11)]
    for path in tracker.folder.glob("*.json"):
        path.unlink()
    assert sync(tracker, "tiny", [arm]) == 0
    assert stored(tracker) == before


def test_runs_have_their_parents_files_and_status(tmp_path: Path) -> None:
    tracker = JsonLinesTracker(tmp_path, None)
    sync(tracker, "tiny", [finished_chain(tmp_path)])
    runs = {json.loads(path.read_text())["name"]: path.parent for path in tmp_path.glob("jsonl/tiny/*/run.json")}
    child = json.loads((runs["2M Grown"] / "run.json").read_text())
    assert child["parent"] == runs["Grown"].name
    assert child["params"]["growth.tau"] == "keep"
    assert (runs["2M Grown"] / "status").read_text() == "finished"
    assert (runs["2M Grown"] / "done.json").read_text() == "{}"


def test_commands_track_with_it_and_the_page_is_mlflows_alone(short: list[str], tmp_path: Path) -> None:
    tracked = [*short, "tracking=mlflow", "tracking.kind=jsonl"]
    said = CliRunner().invoke(app, ["run", *tracked], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert len(list(tmp_path.glob("runs/jsonl/*/*/values.jsonl"))) == 3
    assert not (tmp_path / "runs" / "mlflow.db").exists()
    other = str(tmp_path / "other")
    words = ["sync", other, f"runs={tmp_path / 'runs'}", "tracking.kind=jsonl", "--json"]
    (sent,) = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)["experiments"]
    assert sent["values_sent"] > 0
    said = CliRunner().invoke(app, ["doctor", *tracked, "--json"], catch_exceptions=False)
    assert "JSON lines at " in said.stdout
    with pytest.raises(UserFault, match=r"tracking\.kind=jsonl: must be mlflow"):
        CliRunner().invoke(app, ["ui", *tracked], catch_exceptions=False)


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tracking\.kind=mlfow: must be one of mlflow.*; try mlflow"):
        TRACKERS.get("mlfow")
