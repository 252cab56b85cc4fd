"""A chain on machines that are taken away: another one, with an empty disk, goes on bit for bit."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from s3 import SECRET, s3_server
from stages import outcome, planned, same, train

sys.path.insert(0, str(Path(__file__).parent / "faults"))

from machines import wandb_losses
from torture import mlflow_differences

from tfscale.cli.common import Common
from tfscale.cli.run import run
from tfscale.plan.experiments import recorded
from tfscale.store.contents import newest, snapshots
from tfscale.store.remote import Store
from tfscale.store.stages import push_stage
from tfscale.tracking.sync import Session
from tfscale.tracking.wandb.tracker import WandbTracker


@pytest.fixture
def uri() -> Iterator[str]:
    with s3_server() as uri:
        yield uri


def state_in(store: Store, name: str) -> str:
    found = newest(snapshots(store, f"stages/{name}"))
    return found.name if found else ""


def killed_after_a_checkpoint(overrides: list[str], store: Store, stage: str) -> None:
    """A whole machine that goes away: `tfscale run` and all its children are killed (SIGKILL), after a checkpoint of a
    stage has reached the store."""
    machine = subprocess.Popen([sys.executable, "-m", "tfscale.cli", "run", *overrides])
    while state_in(store, stage) <= "step-000000000000" and machine.poll() is None:
        time.sleep(0.3)
    everything = [machine, *psutil.Process(machine.pid).children(recursive=True)]
    for process in everything:
        process.send_signal(signal.SIGKILL)
    assert machine.wait() == -signal.SIGKILL
    psutil.wait_procs(everything[1:])


def test_a_chain_goes_on_elsewhere_bit_for_bit_when_machine_and_disk_are_lost(
    uri: str, short: list[str], tmp_path: Path, empty_database: Path
) -> None:
    overrides = [*short, "schedule.growth_tokens=38400", "launcher.checkpoint_tokens=6400"]
    first, grown = planned(overrides)
    assert train(first)
    store = Store(uri)
    push_stage(store, first.path)
    assert train(grown)
    expected = outcome(grown)

    def on_machine(name: str) -> list[str]:
        return [*(text for text in overrides if "runs=" not in text), f"runs={tmp_path / name}", f"store={uri}"]

    killed_after_a_checkpoint(on_machine("machine1"), store, grown.path.name)
    assert state_in(store, grown.path.name).startswith("step-"), "it was killed before the end"
    shutil.rmtree(tmp_path / "machine1")
    store.remove([f"leases/{grown.path.name}"])  # it ends two minutes later
    machine2 = [text for text in on_machine("machine2") if text != "tracking=none"]
    runs = tmp_path / "machine2"
    runs.mkdir()
    shutil.copy(empty_database, runs / "mlflow.db")
    assert run(Common(machine2)) == 0
    stages = planned(machine2)
    again = stages[1]
    assert not mlflow_differences(stages, runs)
    (experiment,) = recorded(runs)
    Session(WandbTracker(runs), experiment.name).sync(experiment.arms)
    assert not wandb_losses(stages, runs)
    assert same(outcome(again), expected)
    starts = [line for line in (again.path / "metrics.jsonl").read_text().splitlines() if '"event": "start"' in line]
    assert len(starts) == 2, "it went on from the checkpoint of the first machine"
    assert state_in(store, grown.path.name) == "done"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if SECRET.encode() in path.read_bytes()], "credentials are written nowhere"
    assert not [name for name in store.files() if SECRET.encode() in store.read(name)]
