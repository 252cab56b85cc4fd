"""Code that runs in the tasks of a Slurm job. Each task starts one process of a stage and handles Slurm's signals."""

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import Popen
from types import FrameType
from typing import TYPE_CHECKING, Any

from tfscale.extensions import load_extensions
from tfscale.faults import PREEMPTED
from tfscale.orchestrate.launchers.attempt import Phase
from tfscale.orchestrate.launchers.processes import launch, stage_command
from tfscale.stage.growth_record import is_grown
from tfscale.stage.spec import read_spec

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

POLL_SECONDS = 0.2


class StageJob:
    """A callable that runs a stage to completion. submitit pickles it and calls it in each task of the job."""

    def __init__(self, stage_dir: str, extensions: Sequence[str] = ()) -> None:
        self.stage_dir, self.extensions = stage_dir, tuple(extensions)

    def __call__(self) -> None:
        """Grow the stage if necessary, and train it. Raise SystemExit if a process of the stage fails. In the task of
        rank 0, also raise SystemExit if the stage is preempted."""
        from submitit.helpers import TorchDistributedEnvironment

        load_extensions(self.extensions)
        task = TorchDistributedEnvironment()
        variables = {
            "MASTER_ADDR": task.master_addr,
            "MASTER_PORT": str(task.master_port),
            "RANK": str(task.rank),
            "WORLD_SIZE": str(task.world_size),
            "LOCAL_RANK": str(task.local_rank),
            "LOCAL_WORLD_SIZE": str(task.local_world_size),
        }
        _Task(Path(self.stage_dir), task.rank, variables).run()

    def checkpoint(self) -> "DelayedSubmission":
        """Return the submission with which submitit requeues the job after the stage has saved its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(StageJob(self.stage_dir, self.extensions))


class _Task:
    def __init__(self, stage_dir: Path, rank: int, variables: Mapping[str, str]) -> None:
        self._stage_dir, self._rank, self._variables = stage_dir, rank, variables
        self._asked = self._time_is_up = False
        self._queue_again: Any = signal.getsignal(signal.SIGUSR2)
        if rank == 0:  # the other tasks are notified by the leading one
            signal.signal(signal.SIGUSR2, self._on_signal)
            signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self._time_is_up |= number == signal.SIGUSR2

    def run(self) -> None:
        if read_spec(self._stage_dir).inherits:
            self._grow()
        training = self._launch("training", self._variables)
        assert training.stdin is not None
        self._end(self._wait(training, training.stdin.close))

    def _grow(self) -> None:
        if self._rank == 0 and not is_grown(self._stage_dir):
            growing = self._launch("growing")
            code = self._wait(growing, growing.kill)
            if code != 0:
                self._end(PREEMPTED if self._asked else code)
        while not is_grown(self._stage_dir):
            time.sleep(POLL_SECONDS)

    def _launch(self, phase: Phase, variables: Mapping[str, str] | None = None) -> Popen[bytes]:
        # Slurm signals only the tasks of a job on some clusters, and all processes of the job on others. The process of
        # a stage blocks these signals and is notified once, by its task, which closes the process's standard input.
        ours = {signal.SIGUSR2, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ours)
        log = self._stage_dir / f"{phase}.log" if self._rank == 0 else None  # Slurm stores the output of other tasks
        try:
            return launch(phase, stage_command(phase, self._stage_dir), log, variables)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)

    def _wait(self, child: Popen[bytes], stop: Callable[[], None]) -> int:
        while child.poll() is None:
            if self._asked:
                stop()
            time.sleep(POLL_SECONDS)
        return child.returncode

    def _end(self, code: int) -> None:
        if code == PREEMPTED and self._time_is_up:
            self._queue_again(signal.SIGUSR2, None)  # submitit's handler, which ends this process
        if code == PREEMPTED and self._rank > 0:
            return  # a task that fails would end the leading one, which queues the job again
        if code != 0:
            sys.exit(code)
