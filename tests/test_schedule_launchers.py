"""Tests of launcher settings: invalid ones, and the distribution of devices and cores."""

import subprocess
import sys
from pathlib import Path

import pytest

from tfscale.config.compose import compose
from tfscale.config.machines import LauncherPart, SlurmPart
from tfscale.faults import UserFault
from tfscale.orchestrate.launchers.machine import (
    devices_of,
    missing_devices,
    processes_of,
    visible_devices,
)
from tfscale.orchestrate.launchers.slurm import Queue
from tfscale.plan.plan import make_plan


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["launcher.processes=2"], "must be 1 or auto with launcher.kind=local; try launcher=torchrun"),
        (["launcher=torchrun", "launcher.nodes=2"], "must be 1 with launcher.kind=torchrun; try launcher=slurm"),
        (["launcher=torchrun", "launcher.processes=3"], "3 processes cannot share the 4 sequences of a batch evenly"),
        (["launcher=slurm", "launcher.nodes=3"], "24 processes cannot share the 4 sequences of a batch evenly"),
        (
            ["launcher=slurm", "launcher.slurm.minutes=2"],
            "signal_seconds=120: must be less than the time limit of the job",
        ),
        (["launcher=slurm", "launcher.slurm.partition='a b'"], "partition='a b': must consist of letters, digits"),
        (["launcher=slurm", 'launcher.slurm.account="x\ntouch y"'], "launcher.slurm.account='x"),
        (
            ["launcher=slurm", "launcher.slurm.gpus=0", "launcher.device=cuda"],
            "must be at least 1 with launcher.device",
        ),
        (["launcher=slurm", "runs=a%j"], "must be a path without %, which Slurm replaces"),
        (["launcher=slurm", "launcher.slurm.gpus=-1", "launcher.slurm.cpus=0"], "slurm.cpus=0: must be at least 1"),
    ],
)
def test_settings_that_cannot_be_launched_are_told(small: list[str], overrides: list[str], told: str) -> None:
    with pytest.raises(UserFault) as fault:
        make_plan(compose([*small, *overrides]))
    assert told in str(fault.value)


def test_a_cluster_can_be_planned_for_without_one() -> None:
    plan = make_plan(compose(["schedule=progressive_1b4", "launcher=slurm", "launcher.nodes=8"]))
    assert plan.experiment.launcher.ranks == 64
    assert {stage.spec.run.threads for stage in plan.stages} == {8}


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    ranks = ["launcher=torchrun", "launcher.processes=4", "launcher.threads=0", "launcher.parallel=2"]
    assert make_plan(compose(ranks)).stages[0].spec.run.threads == 1
    assert make_plan(compose(["launcher.threads=0", "launcher.parallel=2"])).stages[0].spec.run.threads == 4


def test_stages_side_by_side_have_devices_of_their_own() -> None:
    four = ("0", "2", "5", "7")
    assert [devices_of(slot, 1, four) for slot in range(4)] == [("0",), ("2",), ("5",), ("7",)]
    assert [devices_of(slot, 2, four) for slot in range(2)] == [("0", "2"), ("5", "7")]
    assert devices_of(5, 1, four) == ("2",), "more stages than devices share them in turn"
    assert devices_of(0, 1, ()) == (), "on the CPU nothing is set"


def test_auto_takes_all_devices_or_shares_them_among_stages() -> None:
    four = ("0", "1", "2", "3")
    assert processes_of(LauncherPart(kind="torchrun"), four) == 4
    assert processes_of(LauncherPart(kind="torchrun", parallel=2), four) == 2
    assert processes_of(LauncherPart(kind="torchrun"), ()) == 1
    assert processes_of(LauncherPart(kind="local", parallel=2), four) == 1


def test_ranks_that_would_share_a_device_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfscale.orchestrate.launchers.machine.built_for_devices", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    part = LauncherPart(kind="torchrun", processes=2, parallel=2)
    assert visible_devices(part) == ("4", "6")
    assert "need 4 CUDA devices and 2 are visible" in missing_devices(part)[0]
    assert visible_devices(LauncherPart(device="cpu")) == ()


def test_what_torch_is_built_for_is_known_without_importing_it() -> None:
    code = (
        "import sys; from tfscale.orchestrate.launchers.processes import built_for_devices; told = built_for_devices();"
        "assert 'torch' not in sys.modules; import torch;"
        "assert told or not (torch.version.cuda or torch.version.hip), 'a build for devices is recognised';"
        "assert told == (not torch.__version__.endswith('+cpu')), 'a build for the CPU is recognised';"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_that_is_not_long_is_checked_without_torch(small: list[str]) -> None:
    code = (
        "import sys; from tfscale.cli.execute import check; from tfscale.cli.common import Common;"
        "check(Common(sys.argv[1:]).plan());"
        "from tfscale.orchestrate.launchers.processes import built_for_devices;"
        "assert ('torch' in sys.modules) == built_for_devices()"
    )
    subprocess.run([sys.executable, "-c", code, *small], check=True)


def test_held_out_batches_side_by_side_take_the_cores_that_stages_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfscale.plan.specs.cores", lambda: 6)

    def lanes(*overrides: str) -> int:
        return make_plan(compose([*overrides])).stages[0].spec.run.lanes

    assert lanes("launcher.threads=1") == 6
    assert lanes("launcher.threads=2") == 3
    assert lanes("launcher.threads=0") == 1, "auto takes all"
    assert lanes("launcher.threads=1", "launcher.parallel=2") == 3
    assert lanes("launcher.threads=4", "launcher.parallel=2") == 1
    assert lanes("launcher=torchrun", "launcher.threads=1", "launcher.processes=2") == 1


def test_ranks_of_a_cluster_are_its_gpus() -> None:
    assert LauncherPart(kind="slurm", nodes=8).ranks == 64
    assert LauncherPart(kind="slurm", nodes=2, processes=3, slurm=SlurmPart(gpus=0)).ranks == 6


def test_a_queue_that_does_not_answer_loses_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\nexit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    queue = Queue()
    assert queue.state("12_0") == "UNKNOWN"
    squeue.write_text("#!/bin/sh\necho '12_0 RUNNING'\n")
    queue.expire()
    assert queue.state("12_0") == "RUNNING"
    assert queue.state("12_1") is None
