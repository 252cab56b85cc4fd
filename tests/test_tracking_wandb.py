"""Weights & Biases as a tracker: what its offline logs contain after kills, and what stays on the machine."""

import json
import re
import socket
from collections import Counter
from pathlib import Path

import pytest
from extensions.test_toy_tracker import stored
from extensions.toy_tracker import JsonLinesTracker
from tracked import chain, evaluate, finish, finished_chain, start_python, sync, train
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.plan.arms import Arm
from tfscale.tracking.tracker import TRACKERS
from tfscale.tracking.wandb.log import logs, rows
from tfscale.tracking.wandb.sink import WandbSink
from tfscale.tracking.wandb.tracker import WandbTracker


def killed(folder: Path, rows_sent: int) -> None:
    """A process that syncs the chain and is killed after it has sent some rows."""
    process = start_python(
        "import wandb",
        "from tfscale.tracking.wandb.tracker import WandbTracker",
        "log, calls = wandb.Run.log, []",
        "def counted(run, *args, **values):",
        "    log(run, *args, **values)",
        "    calls.append(1)",
        f"    len(calls) == {rows_sent} and os.kill(os.getpid(), signal.SIGKILL)",
        "wandb.Run.log = counted",
        f"folder = Path({str(folder)!r})",
        "sync(WandbTracker(folder), 'tiny', [chain(folder)])",
    )
    output, _ = process.communicate()
    assert process.returncode == -9, output


def expected(folder: Path, arm: Arm) -> set[tuple[str, str, float]]:
    """Metric, axis and position of each value, as another tracker receives them."""
    tracker = JsonLinesTracker(folder, str(folder / "other"))
    sync(tracker, "tiny", [arm])
    return {(point.name, point.over, point.at) for points in stored(tracker).values() for point in points}


def test_after_kills_each_run_has_each_step_and_each_value_once(tmp_path: Path) -> None:
    arm = chain(tmp_path)
    train(arm.stages[0], range(1, 11))
    sync(WandbTracker(tmp_path, str(tmp_path / "apart")), "tiny", [arm])  # children inherit this process's service
    for rows_sent in (3, 9):
        killed(tmp_path, rows_sent)
    finish(arm.stages[0])
    train(arm.stages[1], range(1, 11), after=10)
    evaluate(arm.stages[0], lambada=0.5)
    tracker = WandbTracker(tmp_path)
    assert sync(tracker, "tiny", [arm]) > 0
    sink = WandbSink(tmp_path, "tiny")
    assert len(sink.run_ids()) == 3
    assert len(logs(tmp_path)) > 3, "each process has logs of its own"
    steps = Counter((log.stem, row["_step"]) for log in logs(tmp_path) for row in rows(log))
    assert set(steps.values()) == {1}
    held = [sink.stored_counts(run_id) for run_id in sink.run_ids()]
    assert {count for run in held for count in run.values()} == {1}
    assert {place[:3] for run in held for place in run} == expected(tmp_path, arm)
    for path in tracker.folder.glob("*.json"):
        path.unlink()
    assert sync(tracker, "tiny", [arm]) == 0


def test_nothing_of_the_machine_is_in_a_log_or_its_files(tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    environment = {"host": "Zq7private", "argv": ["/home/Zq7private"], "python": "3.12"}
    (arm.stages[0].path / "environment.json").write_text(json.dumps(environment))
    sync(WandbTracker(tmp_path, str(tmp_path / "apart")), "tiny", [arm])
    written = [*(tmp_path / "apart").rglob("*.wandb"), *(tmp_path / "apart").rglob("files/*")]
    assert {"stage.yaml", "done.json", "environment.json"} <= {path.name for path in written}
    host = re.escape(socket.gethostname().encode())
    for path in written:
        for word in ("Zq7private", str(tmp_path)):
            assert word.encode() not in path.read_bytes(), path
        # A host name can be two letters long, which a checksum in a binary log may contain. Logs put the length first.
        in_log = re.escape(bytes([len(socket.gethostname())])) + host
        assert not re.search(in_log if path.suffix == ".wandb" else rb"\b" + host + rb"\b", path.read_bytes()), path


def test_an_address_is_refused_because_runs_are_uploaded_by_wandb_itself(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tracking\.uri=https://api\.wandb\.ai: must be a folder.*; try `wandb sync`"):
        TRACKERS.get("wandb")(tmp_path, "https://api.wandb.ai")
    said = CliRunner().invoke(app, ["list", "tracking", "--json"])
    assert "wandb" in said.stdout
