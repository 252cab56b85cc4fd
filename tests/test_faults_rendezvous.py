"""Ranks that wait for one that never comes: they end when they are asked to, and with whoever started them."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from processes import alive, command_line
from stages import planned, prepare_folder, wait_for

from tfscale.cli.common import Common
from tfscale.cli.execute import check
from tfscale.cli.run import run
from tfscale.config.machines import LauncherPart
from tfscale.faults import PREEMPTED, UserFault
from tfscale.orchestrate.launchers.attempt import Ending
from tfscale.orchestrate.launchers.machine import ThisMachine
from tfscale.stage.folder import Stage

Capture = pytest.CaptureFixture[str]
TRAINING = [sys.executable, "-m", "tfscale.training"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def stage(small: list[str]) -> Stage:
    stage = planned(small)[0]
    prepare_folder(stage)
    return stage


@pytest.fixture
def variables(port: int) -> dict[str, str]:
    """The environment of the leading rank of two."""
    return {**os.environ, "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def waits(process: psutil.Process, port: int) -> bool:
    """True if a rank is waiting for the others, which shows in its connection to their store."""
    addresses = [(each.laddr, each.raddr) for each in process.net_connections("tcp")]
    return any(port in (ours.port, theirs.port if theirs else None) for ours, theirs in addresses)


@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, "input"])
def test_a_rank_that_waits_for_another_ends_when_it_is_asked(
    stage: Stage, variables: dict[str, str], port: int, way: signal.Signals | str
) -> None:
    command = [*TRAINING, str(stage.path), "--supervised"]
    with psutil.Popen(command, env=variables, stdin=subprocess.PIPE) as rank:
        wait_for(lambda: waits(rank, port))
        rank.stdin.close() if way == "input" else rank.send_signal(way)
        assert rank.wait(20) == PREEMPTED


ORPHAN = """
import subprocess, sys, time
print(subprocess.Popen(sys.argv[1:]).pid, flush=True)
time.sleep(600)
"""


def test_a_rank_that_waits_for_another_ends_with_the_process_that_started_it(
    stage: Stage, variables: dict[str, str], port: int
) -> None:
    command = [sys.executable, "-c", ORPHAN, *TRAINING, str(stage.path), "--supervised"]
    with psutil.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        rank = psutil.Process(int(parent.stdout.readline()))
        wait_for(lambda: waits(rank, port))
        parent.kill()
        parent.wait()
        wait_for(lambda: not alive(rank))  # though this test holds its input open


def test_ranks_that_cannot_meet_say_where_they_should_have(stage: Stage, variables: dict[str, str], port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        command = [*TRAINING, str(stage.path)]
        told = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert f"MASTER_ADDR=127.0.0.1, MASTER_PORT={port}: must be the address at which rank 0" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.fixture
def half_met(small: list[str]) -> Iterator[tuple[psutil.Popen, list[psutil.Process]]]:
    """`tfscale run launcher=torchrun` with torchrun and two ranks, of which one is held and the other waits for it."""
    command = [sys.executable, "-m", "tfscale.cli", "run", *small, "launcher=torchrun", "launcher.processes=2"]
    orchestrator = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def ranks() -> list[psutil.Process]:
        return [each for each in orchestrator.children(recursive=True) if "tfscale.training" in command_line(each)[:5]]

    def found() -> list[psutil.Process]:
        return [each for each in ranks() if "torch.distributed.run" not in command_line(each)]

    wait_for(lambda: len(found()) == 2)
    held, free = found()
    held.send_signal(signal.SIGSTOP)
    wait_for(lambda: bool(free.net_connections("tcp")))
    yield orchestrator, [held.parent(), held, free]
    with suppress(psutil.NoSuchProcess):
        held.send_signal(signal.SIGCONT)


def test_nothing_is_left_when_the_orchestrator_is_killed_while_ranks_wait(
    half_met: tuple[psutil.Popen, list[psutil.Process]],
) -> None:
    orchestrator, [torchrun, held, free] = half_met
    orchestrator.kill()
    orchestrator.communicate()
    wait_for(lambda: not alive(free))
    held.send_signal(signal.SIGCONT)  # torchrun would kill it after 30 seconds
    wait_for(lambda: not alive(torchrun, held))


def test_a_run_is_stopped_while_ranks_wait(half_met: tuple[psutil.Popen, list[psutil.Process]]) -> None:
    orchestrator, [torchrun, held, free] = half_met
    orchestrator.send_signal(signal.SIGTERM)
    wait_for(lambda: not alive(free))
    held.send_signal(signal.SIGCONT)
    output, _ = orchestrator.communicate()
    assert orchestrator.returncode == PREEMPTED, output
    assert not alive(torchrun, held)


def test_variables_that_another_launcher_has_left_are_told_and_do_not_reach_a_stage(
    stage: Stage, small: list[str], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name, value in {**variables, "LOCAL_RANK": "7", "TORCHELASTIC_MAX_RESTARTS": "x"}.items():
        monkeypatch.setenv(name, value)
    check(Common(small).plan())
    names = "RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"
    assert f"note: the variables {names} have no effect" in capsys.readouterr().out
    [attempt] = ThisMachine(LauncherPart(threads=1)).start([stage], {})
    wait_for(lambda: attempt.poll() is not None)
    assert attempt.poll() == Ending("finished", "exit code 0")


def test_tfscale_that_torchrun_has_started_several_times_is_refused(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserFault, match=r"WORLD_SIZE=2: must be 1, .*launcher=torchrun launcher.processes=2"):
        run(Common(small))
    assert not (tmp_path / "runs").exists()
