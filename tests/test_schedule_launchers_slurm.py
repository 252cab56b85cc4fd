"""Tests of stages as Slurm jobs. The cluster is this machine: `tests/slurm` has stand-ins for Slurm's commands, which
run real jobs with signals and time limits; submitit and tfscale are the real ones."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from shadows import Shadows
from stages import outcome, same, train, wait_for

from tfscale.config.compose import compose
from tfscale.data.prepare import prepare
from tfscale.faults import PREEMPTED
from tfscale.orchestrate.launchers import slurm
from tfscale.orchestrate.launchers.attempt import Ending
from tfscale.orchestrate.launchers.slurm import Slurm
from tfscale.orchestrate.orchestrator import prepare_folder
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage

COMMANDS = Path(__file__).parent / "slurm"
CHAIN = """
defaults: [/model: tokenformer_tiny, /data: text, /optim: tiny, /growth: exact]
schedule:
  name: two
  growth_tokens: 1024
  stages:
    stage1: {size: S, qkv: 4, tokens: 64K, transformer: {n_layer: 1, d_model: 16, n_head: 2, d_ff: 32}}
    stage2: {size: M, qkv: 8, transformer: {n_layer: 1, d_model: 16, n_head: 2, d_ff: 64}}
"""
JOBS = ["launcher=slurm", "launcher.slurm.gpus=0", "launcher.slurm.minutes=120", "launcher.slurm.signal_seconds=600"]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of a new cluster whose minutes last a second."""
    root = tmp_path / "cluster"
    root.mkdir()
    monkeypatch.setenv("SLURM_STANDIN", str(root))
    monkeypatch.setenv("SLURM_STANDIN_MINUTE", "1")
    monkeypatch.setenv("SLURM_STANDIN_FIRST", str(100 * os.getpid()))
    monkeypatch.setenv("PATH", f"{COMMANDS}:{os.environ['PATH']}")
    yield root
    code = "import sys; sys.path.insert(0, sys.argv[1]); import cluster; cluster.clear()"
    subprocess.run([sys.executable, "-P", "-c", code, str(COMMANDS)], check=True)


@pytest.fixture
def chain(small: list[str], tmp_path: Path) -> list[str]:
    """Arguments of a chain of two sizes. With schedule=one, the chain has only the first size."""
    (tmp_path / "conf" / "schedule").mkdir(parents=True)
    (tmp_path / "conf" / "schedule" / "two.yaml").write_text("# @package _global_" + CHAIN)
    (tmp_path / "conf" / "schedule" / "one.yaml").write_text("# @package _global_" + CHAIN.partition("    stage2:")[0])
    ours = [each for each in small if not each.startswith("schedule.")]
    return ["schedule=two", *ours, "launcher.checkpoint_tokens=8192", "launcher.eval_tokens=50K"]


def plan_of(chain: list[str], tmp_path: Path) -> Plan:
    return make_plan(compose(chain, tmp_path / "conf"))


def tfscale(chain: list[str], tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tfscale.cli", "run", "--config-dir", str(tmp_path / "conf"), *chain]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def trains(stage: Stage) -> bool:
    return bool(read_events(stage.path)) and read_events(stage.path)[-1]["event"] == "train"


def starts(stage: Stage) -> list[int]:
    return [event["step"] for event in read_events(stage.path) if event["event"] == "start"]


def job_of(stage: Stage) -> str:
    job = json.loads((stage.path / "slurm.json").read_text())["job"]
    assert isinstance(job, str)
    return job


def state_of(cluster: Path, job: str) -> str:
    return str(json.loads((cluster / f"job-{job}.json").read_text())["state"])


def let_time_run_out(stage: Stage) -> None:
    """Reduce the time limit of the stage's job to the time that is reserved for saving."""
    subprocess.run(["scontrol", "update", f"JobId={job_of(stage)}", "TimeLimit=0:10"], check=True)


def test_arms_that_are_preempted_and_queued_again_equal_a_local_run(
    chain: list[str], tmp_path: Path, cluster: Path
) -> None:
    chain = [*chain, "baseline=transformer"]
    here = [each if not each.startswith("runs=") else f"runs={tmp_path / 'here'}" for each in chain]
    local, plan = plan_of(here, tmp_path), plan_of([*chain, *JOBS], tmp_path)
    prepare(local.corpus.spec, local.runs / "data")
    for stage in local.stages:
        assert train(stage)
    base = plan.chain.stages[0]
    run = tfscale([*chain, *JOBS], tmp_path)
    wait_for(lambda: trains(base))
    let_time_run_out(base)
    output, _ = run.communicate()
    assert run.returncode == 0, output
    assert [job_of(stage).partition("_")[2] for stage in plan.stages] == ["0", "", "1", "2"], (
        "an array of what is ready"
    )
    assert starts(base)[0] == 0
    assert starts(base)[1] > 0, "preempted, and gone on"
    assert "progressive S: stopped at" in output
    assert "progressive S: continues at" in output
    assert "Requeued job" in (plan.runs / "slurm" / f"{job_of(base)}_0_log.out").read_text()
    assert (plan.runs / "slurm").stat().st_mode & 0o077 == 0, "what jobs unpickle is nobody else's"
    for ours, theirs in zip(plan.stages, local.stages, strict=True):
        assert same(outcome(ours), outcome(theirs))


@pytest.mark.parametrize("tracking", ["tasks", "all"])
def test_a_login_node_that_dies_is_not_missed(
    chain: list[str], tmp_path: Path, cluster: Path, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_STANDIN_TRACKING", tracking)
    chain = [*chain, *JOBS, "launcher.processes=2", "schedule.stages.stage1.tokens=96K"]
    base, grown = plan_of(chain, tmp_path).stages
    first = tfscale(chain, tmp_path)
    wait_for(lambda: trains(base))
    first.kill()
    first.communicate()
    let_time_run_out(base)
    wait_for(lambda: len(starts(base)) == 2)
    job = job_of(base)
    again = tfscale(chain, tmp_path)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert f"job {job} is queued or running" in output
    assert job_of(base) == job
    assert starts(base)[1] > 0
    assert len(starts(base)) == 2
    assert starts(grown) == [0]
    assert {event["processes"] for event in read_events(base.path) if event["event"] == "start"} == {2}


def test_ctrl_c_leaves_the_jobs_alone_and_a_cancelled_one_is_told_and_submitted_again(
    chain: list[str], tmp_path: Path, cluster: Path
) -> None:
    chain = [*chain, *JOBS, "schedule.stages.stage1.tokens=2M"]
    base = plan_of(chain, tmp_path).stages[0]
    first = tfscale(chain, tmp_path)
    wait_for(lambda: trains(base))
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate()
    job = job_of(base)
    assert first.returncode == PREEMPTED
    assert f"`scancel {job}` to end them" in output
    assert state_of(cluster, job) == "RUNNING"
    second = tfscale(chain, tmp_path)
    assert second.stdout is not None
    assert any(f"job {job} is queued or running" in line for line in iter(second.stdout.readline, ""))
    subprocess.run(["scancel", job], check=True)
    output, _ = second.communicate()
    assert second.returncode == 1, output
    assert f"job {job} ended with state CANCELLED by 1000" in output
    assert read_events(base.path)[-1]["reason"] == "preempted", "it has saved"
    third = tfscale(chain, tmp_path)
    wait_for(lambda: job_of(base) != job and len(starts(base)) == 2)
    third.send_signal(signal.SIGINT)
    third.communicate()


def test_the_queue_is_asked_often_at_first_and_then_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    now = 1000.0

    def squeue(words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        asked.append(now)
        return subprocess.CompletedProcess(words, 0, "7 RUNNING\n")

    monkeypatch.setattr(slurm.time, "monotonic", lambda: now)
    monkeypatch.setattr(slurm.children, "run", squeue)
    queue = slurm.Queue()  # of a command that follows jobs of an earlier one
    while now < 1600:
        assert queue.state("7") == "RUNNING"
        now += 1
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (slurm.SHORTEST_LOOK, slurm.LONGEST_LOOK)


def test_a_task_that_is_killed_is_submitted_again(chain: list[str], tmp_path: Path, cluster: Path) -> None:
    chain = ["schedule=one", *chain[1:], *JOBS]
    [base] = plan_of(chain, tmp_path).stages
    run = tfscale(chain, tmp_path)
    wait_for(lambda: trains(base))
    first = job_of(base)
    os.kill(next(event["pid"] for event in read_events(base.path) if event["event"] == "start"), signal.SIGKILL)
    output, _ = run.communicate()
    assert run.returncode == 0, output
    assert f"job {first} ended with state FAILED" in output
    assert job_of(base) != first


def test_a_job_takes_nothing_from_the_folder_and_the_ranks_that_it_is_submitted_from(
    chain: list[str], tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = [*chain, *JOBS, "launcher.processes=2", "schedule.stages.stage1.tokens=4096"]
    stage = plan_of(chain, tmp_path).stages[0]
    prepare(plan_of(chain, tmp_path).corpus.spec, tmp_path / "runs" / "data")
    prepare_folder(stage)
    shadows = Shadows(tmp_path)
    monkeypatch.chdir(shadows.folder)
    for name, value in {"RANK": "5", "WORLD_SIZE": "", "MASTER_PORT": "none", "MASTER_ADDR": "nowhere"}.items():
        monkeypatch.setenv(name, value)
    [job] = Slurm(compose(chain, tmp_path / "conf").launcher).start([stage], {})
    wait_for(lambda: job.poll() is not None)
    assert job.poll() == Ending("finished", f"job {job.job}")
    assert {event["processes"] for event in read_events(stage.path) if event["event"] == "start"} == {2}
    assert shadows.run() == []


def test_jobs_that_sbatch_refuses_end_the_run_with_its_words(chain: list[str], tmp_path: Path, cluster: Path) -> None:
    refused = tfscale([*chain, *JOBS, "launcher.slurm.partition=closed", "launcher.retries=0"], tmp_path)
    output, _ = refused.communicate()
    assert refused.returncode == 1
    assert "invalid partition specified: closed" in output


def test_a_machine_without_slurm_is_told_so_before_anything_is_written(chain: list[str], tmp_path: Path) -> None:
    told = tfscale([*chain, *JOBS], tmp_path)
    output, _ = told.communicate()
    assert told.returncode == 2
    assert "requires the commands sbatch, srun, squeue, scontrol, scancel; try a login node" in output
    assert not (tmp_path / "runs").exists()
