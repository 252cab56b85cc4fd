"""Launcher that submits stages as Slurm jobs with submitit. Any tfscale process can follow the jobs."""

import importlib.util
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale import children
from tfscale.config.machines import LauncherPart
from tfscale.extensions import loaded_extensions
from tfscale.files import read_object, write_json
from tfscale.orchestrate.launchers.attempt import Attempt, Ending, LaunchFailed, Phase
from tfscale.orchestrate.launchers.machine import phase_of
from tfscale.orchestrate.launchers.slurm_job import StageJob
from tfscale.stage.folder import Stage, is_done

if TYPE_CHECKING:
    from submitit import SlurmExecutor

JOB_FILE = "slurm.json"
"""Name of the file in the folder of a stage that records the last job submitted for the stage."""
JOBS_FOLDER = "slurm"
"""Name of the folder in the runs folder for the files that submitit writes."""
JOB_NAME = "tfscale"
COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "scancel")
SHORTEST_LOOK, LONGEST_LOOK = 2.0, 30.0
"""Shortest (after a submission) and longest time in seconds between two queries of the queue."""


class Slurm:
    """A launcher that runs each stage as a Slurm job. Stages that are ready at the same time form one job array."""

    max_parallel = 10_000  # the queue decides which stages run at the same time
    is_detached = True
    poll_seconds = 1.0

    def __init__(self, part: LauncherPart) -> None:
        self._part = part
        self._queue = Queue()

    def start(self, stages: Sequence[Stage], limits: Mapping[str, int]) -> list[Attempt]:
        # without limits, because `budget` is refused with this launcher
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        folder = _jobs_folder(stages[0])
        try:
            folder.mkdir(exist_ok=True)
            folder.chmod(0o700)  # the jobs run code from this folder
            executor = self._executor(folder)
            with executor.batch():
                extensions = [extension.module for extension in loaded_extensions()]
                jobs = [executor.submit(StageJob(str(stage.path.resolve()), extensions)) for stage in stages]
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            raise LaunchFailed(f"sbatch rejected the jobs: {error}") from error
        self._queue.expire()
        for stage, job in zip(stages, jobs, strict=True):
            write_json(stage.path / JOB_FILE, {"job": job.job_id, "submitted": time.time()})
        return [JobAttempt(stage, job.job_id, self._queue) for stage, job in zip(stages, jobs, strict=True)]

    def _executor(self, folder: Path) -> "SlurmExecutor":
        from submitit import SlurmExecutor

        part, slurm = self._part, self._part.slurm
        executor = SlurmExecutor(folder, max_num_timeout=slurm.requeues)
        parameters: dict[str, Any] = {
            "job_name": JOB_NAME,
            "time": slurm.minutes,
            "signal_delay_s": slurm.signal_seconds,
            "nodes": part.nodes,
            "ntasks_per_node": part.ranks // part.nodes,
            "cpus_per_task": slurm.cpus,
            "gpus_per_node": slurm.gpus or None,
            "partition": slurm.partition,
            "account": slurm.account,
            "qos": slurm.qos,
            # Since Slurm 22.05, srun does not inherit the CPUs per task from sbatch.
            "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={slurm.cpus}"],
            "additional_parameters": {"requeue": True},
            "setup": children.shell_lines(),  # sbatch passes the environment of this process to the job
        }
        executor.update_parameters(**{name: value for name, value in parameters.items() if value is not None})
        return executor

    def follow(self, stage: Stage) -> Attempt | None:
        job = _job_of(stage)
        if job is None or self._queue.state(job) is None:
            return None
        return JobAttempt(stage, job, self._queue)

    def describe_stop(self, attempts: Sequence[Attempt]) -> str:
        jobs = sorted({str(attempt.job).partition("_")[0] for attempt in attempts}, key=int)
        if not jobs:
            return "Leaving. There are no jobs in the queue."
        return (
            "Leaving. The jobs continue to run. Run the same command to follow them again, or "
            f"`scancel {' '.join(jobs)}` to end them with a checkpoint."
        )


@dataclass(frozen=True)
class JobAttempt:
    """An attempt to run a stage as a Slurm job."""

    stage: Stage
    job: str
    queue: "Queue"

    @property
    def phase(self) -> Phase:
        return phase_of(self.stage)

    @property
    def log(self) -> Path:
        return self.stage.path / f"{self.phase}.log"

    def poll(self) -> Ending | None:
        if is_done(self.stage):
            return Ending("finished", f"job {self.job}")
        if self.queue.state(self.job) is not None:
            return None
        state = _last_state(self.job)
        own = _jobs_folder(self.stage) / f"{self.job}_0_log.err"
        how = f"job {self.job} ended with state {state}; see the log of Slurm and submitit: {own}"
        return Ending("refused" if state.startswith("CANCELLED by") else "died", how)

    def is_running(self) -> bool:
        return self.queue.state(self.job) == "RUNNING"

    def stop(self) -> None:
        """Cancel the job. Slurm first signals the job, so that the stage can save a checkpoint."""
        children.run(("scancel", self.job))


class Queue:
    """States of this user's tfscale jobs in the Slurm queue, read with squeue at intervals."""

    def __init__(self) -> None:
        self._states: dict[str, str] | None = None
        self._asked, self._since = float("-inf"), time.monotonic()

    def expire(self) -> None:
        """Discard the known states, so that the next call of `state` queries Slurm. This method must be called after
        jobs have been submitted."""
        self._states, self._asked, self._since = None, float("-inf"), time.monotonic()

    def state(self, job: str) -> str | None:
        """Return the state of a job, such as PENDING or RUNNING, or None if the job is not in the queue. The state is
        UNKNOWN if Slurm has not answered yet."""
        now = time.monotonic()
        pause = min(LONGEST_LOOK, max(SHORTEST_LOOK, (now - self._since) / 4))
        if now - self._asked >= pause:
            self._ask()
            self._asked = now
        # While Slurm does not answer, a job is assumed to be in its last known state.
        return "UNKNOWN" if self._states is None else self._states.get(job)

    def _ask(self) -> None:
        answer = children.run(("squeue", "--me", f"--name={JOB_NAME}", "--array", "--noheader", "--format=%i %T"))
        if answer.returncode == 0:
            self._states = dict(line.split() for line in answer.stdout.splitlines())


def missing_tools() -> list[str]:
    """Return a fault, with its fix, for each requirement of Slurm jobs that this machine does not meet."""
    faults = []
    if importlib.util.find_spec("submitit") is None:
        faults.append("launcher=slurm: requires submitit; try pip install 'tfscale[slurm]'")
    absent = [command for command in COMMANDS if shutil.which(command) is None]
    if absent:
        faults.append(
            f"launcher=slurm: requires the commands {', '.join(absent)}; try a login node of the cluster, or "
            "launcher=torchrun on one machine"
        )
    return faults


def _jobs_folder(stage: Stage) -> Path:
    return stage.path.resolve().parents[1] / JOBS_FOLDER


def _job_of(stage: Stage) -> str | None:
    try:
        job = read_object(stage.path / JOB_FILE)["job"]
    except (ValueError, KeyError):
        return None
    return job if isinstance(job, str) and re.fullmatch(r"\d+(_\d+)?", job) else None


def _last_state(job: str) -> str:
    """Return the state that sacct reports for a job that has left the queue, or UNKNOWN on clusters that do not record
    it."""
    from submitit.slurm.slurm import SlurmInfoWatcher

    return SlurmInfoWatcher().get_state(job, mode="force")
