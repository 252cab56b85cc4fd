"""Settings of launchers: what is refused, and who gets which devices and cores."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest
from stages import elsewhere, outcome, planned, prepare_folder, same, train

from tfscale.cli.run import run
from tfscale.config.compose import compose
from tfscale.config.schema import LauncherPart, SlurmPart
from tfscale.faults import UserFault
from tfscale.schedule.launchers import launcher_of
from tfscale.schedule.launchers.ahead import MOST, Ahead, early
from tfscale.schedule.launchers.attempt import Coming
from tfscale.schedule.launchers.machine import (
    ProcessAttempt,
    ThisMachine,
    devices_of,
    missing_devices,
    processes_of,
    visible_devices,
)
from tfscale.schedule.launchers.slurm import Queue
from tfscale.schedule.plan import make_plan
from tfscale.training.events import read_events


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["launcher.processes=2"], "must be 1 or auto with launcher.kind=local; try launcher=torchrun"),
        (["launcher=torchrun", "launcher.nodes=2"], "must be 1 with launcher.kind=torchrun; try launcher=slurm"),
        (["launcher=torchrun", "launcher.processes=3"], "3 processes cannot share the 4 sequences of a batch evenly"),
        (["launcher=slurm", "launcher.nodes=3"], "24 processes cannot share the 4 sequences of a batch evenly"),
        (["launcher=slurm", "launcher.slurm.minutes=2"], "signal_seconds=120: must be less than the job's time"),
        (["launcher=slurm", "launcher.slurm.partition='a b'"], "partition='a b': must be of letters, digits"),
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
    monkeypatch.setattr("tfscale.schedule.launchers.machine.built_for_devices", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    part = LauncherPart(kind="torchrun", processes=2, parallel=2)
    assert visible_devices(part) == ("4", "6")
    assert "need 4 CUDA devices, and 2 are visible" in missing_devices(part)[0]
    assert visible_devices(LauncherPart(device="cpu")) == ()


def test_what_torch_is_built_for_is_known_without_importing_it() -> None:
    code = (
        "import sys; from tfscale.schedule.launchers.processes import built_for_devices; told = built_for_devices();"
        "assert 'torch' not in sys.modules; import torch;"
        "assert told or not (torch.version.cuda or torch.version.hip), 'a build with devices is never passed over';"
        "assert told == (not torch.__version__.endswith('+cpu')), 'the second that it saves'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_that_is_not_long_is_checked_without_torch(small: list[str]) -> None:
    code = (
        "import sys; from tfscale.cli.execute import check; from tfscale.cli.experiment import plan_of;"
        "check(plan_of(sys.argv[1:], None));"
        "from tfscale.schedule.launchers.processes import built_for_devices;"
        "assert ('torch' in sys.modules) == built_for_devices()"
    )
    subprocess.run([sys.executable, "-c", code, *small], check=True)


def test_held_out_batches_side_by_side_take_the_cores_that_stages_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfscale.schedule.specs.cores", lambda: 6)

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


def waiting() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "tfscale.schedule.waiting" in each.cmdline()]


def test_processes_that_wait_write_nothing_until_their_turn_and_then_do_the_same(small: list[str]) -> None:
    parent, stage = planned(small)[:2]
    assert train(parent)
    straight = elsewhere(stage, "straight")
    assert train(straight)
    ahead, coming = Ahead(), [(stage, "growing"), (stage, "training")]  # type: tuple[Ahead, list[Coming]]
    ahead.expect(coming)
    assert not stage.path.exists()
    prepare_folder(stage)
    for each in coming:
        process = ahead.begin(each)
        assert process is not None
        with process:
            assert process.wait() == 0
    assert same(outcome(stage), outcome(straight))
    assert not waiting()


def test_only_what_comes_next_waits_and_nothing_in_the_end(small: list[str]) -> None:
    first, second = planned(small)[:2]
    coming: list[Coming] = [(first, "training"), (second, "growing"), (second, "training")]
    ahead = Ahead()
    ahead.expect(coming)
    before = waiting()
    assert sorted(each.cmdline()[-1] for each in before) == ["growing", "training"], f"the first {MOST}"
    ahead.expect(coming[1:])
    assert waiting() == before, "a process is for any stage"
    ahead.expect(coming[2:])
    [left] = waiting()
    assert left in before
    assert left.cmdline()[-1] == "training"
    ahead.expect([])
    assert not waiting()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux tells it")
def test_the_end_of_a_process_is_met_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tfscale.schedule.launchers.machine.PAUSE", 20.0)
    machine = ThisMachine(LauncherPart(parallel=2))
    commands = ["sys.stdin.readline()", "time.sleep(10)"]
    short, long = (
        subprocess.Popen([sys.executable, "-c", f"import sys, time; {command}"], stdin=subprocess.PIPE)
        for command in commands
    )
    machine._slots = [ProcessAttempt(each, "training", tmp_path) for each in (short, long)]
    assert short.stdin is not None
    short.stdin.close()
    with long:
        machine.wait()
        assert short.wait() == 0
        assert long.poll() is None, "nobody waited for the other"
        long.kill()


CPU_BUILD = "tfscale.schedule.launchers.ahead.built_for_devices"


def test_a_process_that_began_early_serves_the_first_stage(small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CPU_BUILD, lambda: False)
    stage = planned(small)[0]
    with early():
        [process] = waiting()
        ahead = Ahead()
        prepare_folder(stage)
        begun = ahead.begin((stage, "training"))
        assert begun is not None
        assert begun.pid == process.pid
    with begun:
        assert begun.wait() == 0, "and it is let go on"
    assert (stage.path / "done.json").exists()


def test_a_process_that_began_early_for_nothing_ends_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CPU_BUILD, lambda: False)
    with early():
        assert len(waiting()) == 1
    assert not waiting()
    for kind in ("slurm", "torchrun"):
        with early():
            launcher_of(LauncherPart(kind=kind))
            assert not waiting(), "these start their own"
    monkeypatch.setattr(CPU_BUILD, lambda: True)
    with early():
        assert not waiting()


def test_a_process_that_was_killed_while_it_waited_is_done_without(small: list[str]) -> None:
    stage = planned(small)[0]
    ahead = Ahead()
    ahead.expect([(stage, "training")])
    [process] = waiting()
    process.kill()
    psutil.wait_procs([process])
    assert ahead.begin((stage, "training")) is None


def test_a_process_that_waits_ends_when_the_one_that_started_it_is_killed(small: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", SUPERVISOR, *small]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        process = psutil.Process(int(supervisor.stdout.readline()))
        supervisor.kill()
        psutil.wait_procs([process], timeout=60)
    assert not process.is_running()


SUPERVISOR = """
import psutil, sys, time
from tfscale.config.compose import compose
from tfscale.schedule.launchers.ahead import Ahead
from tfscale.schedule.plan import make_plan
Ahead().expect([(make_plan(compose(sys.argv[1:])).stages[0], "training")])
print(psutil.Process().children()[0].pid, flush=True)
time.sleep(600)
"""


def test_processes_ahead_leave_the_cores_to_one_that_has_no_step_yet(
    small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, seen = planned(small), []
    expect = ThisMachine.expect

    def look(self: ThisMachine, coming: Iterable[Coming]) -> None:
        expected = list(coming)
        if [stage.key for stage, _ in expected] == [stage.key for stage in stages[1:] for _ in ("growing", "training")]:
            seen.append(any(event.get("tokens", 0) > 0 for event in read_events(stages[0].path)))
        expect(self, expected)

    monkeypatch.setattr(ThisMachine, "expect", look)
    assert run(small, None) == 0
    assert set(seen) == {True}
