"""Stages whose processes die, hang or run out of memory, under their supervisor."""

import signal
import subprocess
import sys
from itertools import pairwise

import psutil
from stages import planned, wait_for

from tfscale.schedule.arms import ArmStage
from tfscale.schedule.ledger import is_done, status_of
from tfscale.training.events import read_events
from tfscale.training.preemption import PREEMPTED

LONG = ("schedule.stages.stage1.tokens=200K", "launcher.checkpoint_tokens=8192")


def run(overrides: list[str]) -> psutil.Popen:
    command = [sys.executable, "-m", "tfscale.cli", "run", *overrides]
    return psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def trainer_of(process: psutil.Popen, stage: ArmStage) -> psutil.Process:
    """The stage's process, once it trains."""

    def pids() -> list[int]:
        return [event["pid"] for event in read_events(stage.path) if event["event"] == "start"]

    wait_for(lambda: bool(pids()) and psutil.pid_exists(pids()[-1]) and read_events(stage.path)[-1]["event"] == "train")
    return psutil.Process(pids()[-1])


def test_a_trainer_that_is_killed_is_started_again(small: list[str]) -> None:
    overrides = [*small, *LONG]
    stage = planned(overrides)[0]
    process = run(overrides)
    trainer_of(process, stage).kill()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "SIGKILL" in output
    assert "Trying again in 2 s, from its checkpoint" in output
    assert is_done(stage)


def test_a_trainer_that_dies_too_often_ends_the_run(small: list[str]) -> None:
    overrides = [*small, *LONG, "launcher.retries=1"]
    stage = planned(overrides)[0]
    process = run(overrides)
    first = trainer_of(process, stage)
    first.kill()
    wait_for(lambda: sum(event["event"] == "start" for event in read_events(stage.path)) == 2)
    trainer_of(process, stage).kill()
    output, _ = process.communicate()
    assert process.returncode == 1
    assert output.count("SIGKILL") == 2
    assert "The end of" in output


def test_a_trainer_without_a_sign_of_life_is_ended_and_started_again(small: list[str]) -> None:
    overrides = [*small, *LONG, "launcher.hang_minutes=0.2"]
    stage = planned(overrides)[0]
    process = run(overrides)
    trainer_of(process, stage).send_signal(signal.SIGSTOP)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "no sign of life" in output
    assert is_done(stage)


def test_a_second_signal_ends_at_once_and_without_damage(small: list[str]) -> None:
    overrides = [*small, "schedule.stages.stage1.tokens=1M"]
    stage = planned(overrides)[0]
    process = run(overrides)
    trainer = trainer_of(process, stage)
    trainer.send_signal(signal.SIGSTOP)  # so that the first signal cannot be answered
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    trainer.send_signal(signal.SIGCONT)
    process.communicate()
    assert process.returncode == PREEMPTED
    assert status_of(stage).state in ("preempted", "interrupted")
    assert not list((stage.path / "checkpoints").glob("broken-*"))


def test_a_stage_out_of_memory_goes_on_with_half_the_micro_batch(small: list[str]) -> None:
    overrides = [
        *small,
        "optim.batch_tokens=524288",
        "schedule.growth_tokens=524288",
        "schedule.stages.stage1.tokens=1048576",
    ]
    stage = planned(overrides)[0]
    code = f"""
import resource, sys
from tfscale.config.compose import compose
from tfscale.cli.view import PlainView
from tfscale.cli.experiment import console
from tfscale.schedule.orchestrator import Orchestrator
from tfscale.schedule.plan import make_plan
resource.setrlimit(resource.RLIMIT_AS, (2_500_000_000,) * 2)
plan = make_plan(compose({overrides!r}))
launcher = plan.experiment.launcher.__class__(retries=4, threads=1)
Orchestrator(plan.stages[:1], launcher, PlainView(plan, console)).run()
"""
    limited = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert limited.returncode == 0, limited.stdout + limited.stderr
    assert "sequences at a time" in limited.stdout
    sizes = [event["micro_batch"] for event in read_events(stage.path) if event["event"] == "start"]
    assert len(sizes) >= 2
    assert all(later == earlier // 2 for earlier, later in pairwise(sizes))
    assert is_done(stage)
