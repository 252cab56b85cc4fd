"""Stages whose processes die, hang or run out of memory, under their supervisor."""

import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from processes import alive
from stages import elsewhere, outcome, planned, prepare_folder, same, wait_for

from tfscale.config.compose import compose
from tfscale.data.prepare import prepare
from tfscale.faults import PREEMPTED
from tfscale.plan.plan import make_plan
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.status import status_of

ONE_STAGE = """
defaults: [/model: tokenformer_tiny, /data: text, /optim: tiny, /growth: exact]
schedule: {name: one, stages: {only: {size: S, qkv: 4, tokens: 24K}}}
"""
LONG = ("schedule.stages.only.tokens=64K", "launcher.checkpoint_tokens=8192")


def run(overrides: list[str]) -> psutil.Popen:
    command = [sys.executable, "-m", "tfscale.cli", "run", *overrides]
    return psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def one_stage(small: list[str], tmp_path: Path) -> list[str]:
    """Arguments of a chain of one stage."""
    (tmp_path / "conf" / "schedule").mkdir(parents=True)
    (tmp_path / "conf" / "schedule" / "one.yaml").write_text("# @package _global_" + ONE_STAGE)
    ours = [each for each in small if not each.startswith("schedule.")]
    return ["--config-dir", str(tmp_path / "conf"), "schedule=one", *ours]


@pytest.fixture
def two_ranks(one_stage: list[str]) -> list[str]:
    """Arguments of a chain of one stage that two processes train together."""
    return [*one_stage, "launcher=torchrun", "launcher.processes=2", "launcher.checkpoint_tokens=2048"]


def only_stage(arguments: list[str]) -> Stage:
    plan = make_plan(compose(arguments[2:], Path(arguments[1])))
    prepare(plan.corpus.spec, plan.runs / "data")
    return plan.stages[0]


def trainer_of(process: psutil.Popen, stage: Stage) -> psutil.Process:
    """The stage's process, the leading one of several, once it trains."""

    def trains() -> bool:
        events = read_events(stage.path)
        first = max((i for i, event in enumerate(events) if event["event"] == "start"), default=len(events))
        return any(event["event"] == "train" for event in events[first:]) and psutil.pid_exists(events[first]["pid"])

    wait_for(trains)
    return psutil.Process([event["pid"] for event in read_events(stage.path) if event["event"] == "start"][-1])


def test_a_trainer_that_is_killed_is_started_again(one_stage: list[str]) -> None:
    overrides = [*one_stage, *LONG]
    stage = only_stage(overrides)
    process = run(overrides)
    trainer_of(process, stage).kill()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "SIGKILL" in output
    assert "Retrying in 2 s from the last checkpoint" in output
    assert is_done(stage)


def test_a_trainer_that_dies_too_often_ends_the_run(one_stage: list[str]) -> None:
    overrides = [*one_stage, *LONG, "launcher.retries=1"]
    stage = only_stage(overrides)
    process = run(overrides)
    first = trainer_of(process, stage)
    first.kill()
    wait_for(lambda: sum(event["event"] == "start" for event in read_events(stage.path)) == 2)
    trainer_of(process, stage).kill()
    output, _ = process.communicate()
    assert process.returncode == 1
    assert output.count("SIGKILL") == 2
    assert "The end of" in output


def test_a_trainer_without_a_sign_of_life_is_ended_and_started_again(one_stage: list[str]) -> None:
    overrides = [*one_stage, *LONG, "launcher.hang_minutes=0.1"]
    stage = only_stage(overrides)
    process = run(overrides)
    trainer_of(process, stage).send_signal(signal.SIGSTOP)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "no heartbeat" in output
    assert is_done(stage)


def test_a_second_signal_ends_at_once_and_without_damage(short: list[str]) -> None:
    overrides = [*short, "schedule.stages.stage1.tokens=1M"]
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


def run_in_little_memory(overrides: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the first stage with 1.2 GB of address space in addition to what the imports take."""
    probe = "import psutil, tfscale.training.state; print(psutil.Process().memory_info().vms)"
    imported = int(subprocess.run([sys.executable, "-c", probe], capture_output=True, check=True).stdout)
    code = f"""
import resource, sys
from dataclasses import replace
from tfscale.config.compose import compose
from tfscale.cli.view import PlainView
from tfscale.cli.console import console
from tfscale.orchestrate.orchestrator import Orchestrator
from tfscale.plan.plan import make_plan
resource.setrlimit(resource.RLIMIT_AS, ({imported} + 1_200_000_000,) * 2)
plan = make_plan(compose({overrides!r}))
launcher = replace(plan.experiment.launcher, retries=4, threads=1)
Orchestrator(plan.stages[:1], launcher, PlainView(plan, console)).run()
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


LARGE_BATCH = (
    "optim.batch_tokens=262144",
    "schedule.growth_tokens=262144",
    "schedule.stages.stage1.tokens=262144",
    "model.d_model=64",
)


def test_a_stage_out_of_memory_goes_on_with_half_the_micro_batch(short: list[str]) -> None:
    overrides = [*short, *LARGE_BATCH]
    stage = planned(overrides)[0]
    limited = run_in_little_memory(overrides)
    assert limited.returncode == 0, limited.stdout + limited.stderr
    assert "sequences at a time" in limited.stdout
    sizes = [event["micro_batch"] for event in read_events(stage.path) if event["event"] == "start"]
    assert sizes[-1] < sizes[0]
    # OpenMP ends a process in which it cannot start a thread, which can happen with so little memory; that attempt is
    # repeated with the same size.
    assert all(later in (earlier, earlier // 2) for earlier, later in pairwise(sizes))
    assert is_done(stage)


def test_a_stage_out_of_memory_fails_if_it_needs_the_whole_batch(short: list[str]) -> None:
    overrides = [*short, *LARGE_BATCH, "launcher.update=in_backward", "optim.clip=0"]
    stage = planned(overrides)[0]
    limited = run_in_little_memory(overrides)
    assert "try a smaller optim.batch_tokens, or launcher.update=whole" in limited.stderr
    assert [event["event"] for event in read_events(stage.path)].count("start") == 1


def test_a_rank_that_is_killed_is_recovered_with_the_numbers_of_an_undisturbed_run(two_ranks: list[str]) -> None:
    stage = only_stage(two_ranks)
    undisturbed = elsewhere(stage, "undisturbed")
    prepare_folder(undisturbed)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    training = ["-m", "tfscale.training", str(undisturbed.path)]
    subprocess.run([sys.executable, *torchrun, *training], check=True)
    process = run(two_ranks)
    leading = trainer_of(process, stage)
    wait_for(lambda: any(event["event"] == "checkpoint" for event in read_events(stage.path)))
    [other] = [rank for rank in leading.parent().children() if rank != leading]
    other.kill()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "Retrying in 2 s from the last checkpoint" in output
    assert [event["step"] > 0 for event in read_events(stage.path) if event["event"] == "start"] == [False, True]
    assert same(outcome(stage), outcome(undisturbed))


def test_ranks_save_when_they_are_stopped_and_when_their_supervisor_is_killed(two_ranks: list[str]) -> None:
    arguments = [*two_ranks, "schedule.stages.only.tokens=2M"]
    stage = only_stage(arguments)
    process = run(arguments)
    trainer_of(process, stage)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == PREEMPTED
    assert status_of(stage).state == "preempted"
    stopped = read_events(stage.path)[-1]["step"]
    process = run(arguments)
    ranks = trainer_of(process, stage).parent().children()
    assert [event["step"] for event in read_events(stage.path) if event["event"] == "start"] == [0, stopped]
    process.kill()
    process.communicate()
    wait_for(lambda: status_of(stage).state == "preempted")
    wait_for(lambda: not alive(*ranks))
