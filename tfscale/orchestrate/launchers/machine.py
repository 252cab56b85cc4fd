"""Launcher that runs a stage on this machine as one process, or as several processes that torchrun starts."""

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import psutil

from tfscale import children
from tfscale.config.machines import LauncherPart
from tfscale.faults import PREEMPTED, USER_FAULT
from tfscale.orchestrate.launchers.attempt import Attempt, Ending, Phase
from tfscale.orchestrate.launchers.processes import built_for_devices, launch, stage_command
from tfscale.stage.folder import Stage
from tfscale.stage.growth_record import is_grown


class ThisMachine:
    """A launcher that runs stages on this machine, in processes that end with this process."""

    is_detached = False
    poll_seconds = 0.1

    def __init__(self, part: LauncherPart) -> None:
        self.max_parallel = part.parallel
        self._devices = visible_devices(part)
        self._torchrun = part.kind == "torchrun"
        self._processes = processes_of(part, self._devices)
        self._slots: list[ProcessAttempt | None] = [None] * part.parallel

    def start(self, stages: Sequence[Stage], limits: Mapping[str, int]) -> list[Attempt]:
        # on separate devices if there are enough
        return [self._start(stage, limits.get(stage.key)) for stage in stages]

    def _start(self, stage: Stage, stop_at: int | None) -> Attempt:
        slot = next(i for i, attempt in enumerate(self._slots) if attempt is None or attempt.poll() is not None)
        devices = devices_of(slot, self._processes, self._devices)
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {}
        phase = phase_of(stage)
        command = stage_command(phase, stage.path, stop_at)
        if phase == "training" and self._torchrun:
            torchrun = children.python("torch.distributed.run", "--standalone", f"--nproc-per-node={self._processes}")
            command = [*torchrun, *command[1:]]
        log = stage.path / f"{phase}.log"
        process = launch(phase, command, log, environment)
        self._slots[slot] = attempt = ProcessAttempt(process, phase, log)
        return attempt

    def follow(self, stage: Stage) -> Attempt | None:
        return None  # stages end with the tfscale process that started them

    def describe_stop(self, attempts: Sequence[Attempt]) -> str:
        return "Stopping. Running stages save a checkpoint."


@dataclass
class ProcessAttempt:
    """An attempt to run a stage on this machine, as a process that may have child processes."""

    process: Popen[bytes]
    phase: Phase
    log: Path
    job: None = None
    _asked: bool = False

    def poll(self) -> Ending | None:
        code = self.process.poll()
        if code is None:
            return None
        self._close_input()
        if code < 0:
            return Ending("died", f"signal {signal.Signals(-code).name}")
        kinds = {0: "finished", PREEMPTED: "stopped", USER_FAULT: "refused"}
        return Ending(kinds.get(code, "died"), f"exit code {code}")  # type: ignore[arg-type]

    def is_running(self) -> bool:
        return True  # a process does not wait in a queue

    def stop(self) -> None:
        if not self._asked:
            self._asked = True
            # torchrun would forward a signal and then wait for only 30 seconds. A closed standard input reaches the
            # ranks directly.
            self._close_input() if self.phase == "training" else self.process.terminate()
            return
        with suppress(psutil.NoSuchProcess):
            processes = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            for each in processes:
                with suppress(psutil.NoSuchProcess):
                    each.kill()

    def _close_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


def phase_of(stage: Stage) -> Phase:
    return "training" if not stage.spec.inherits or is_grown(stage.path) else "growing"


def visible_devices(part: LauncherPart) -> tuple[str, ...]:
    """Return the CUDA devices that stages may use, named as in CUDA_VISIBLE_DEVICES. The result is empty if stages run
    on the CPU."""
    if part.device == "cpu" or not built_for_devices():
        return ()
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return tuple(named[:count] if named else map(str, range(count)))


def processes_of(part: LauncherPart, devices: Sequence[str]) -> int:
    """Return the number of processes per stage. It is 1 for launcher=local. `launcher.processes=auto` divides the
    devices among the stages that run in parallel."""
    if part.kind == "local":
        return 1
    return part.processes or max(1, len(devices) // part.parallel)


def devices_of(slot: int, processes: int, devices: Sequence[str]) -> tuple[str, ...]:
    """Return the CUDA devices for one of the stages that run in parallel. `slot` is the index of this stage among them,
    and `processes` the number of its processes. If there are too few devices, stages share devices."""
    if not devices:
        return ()
    return tuple(dict.fromkeys(devices[(slot * processes + i) % len(devices)] for i in range(processes)))


def missing_devices(part: LauncherPart) -> list[str]:
    """Return a list that contains a fault if processes of torchrun would share a device, and is empty otherwise."""
    devices = visible_devices(part)
    processes = processes_of(part, devices)
    if part.kind == "local" or not devices or part.parallel * processes <= len(devices):
        return []
    return [
        f"launcher.processes={processes}: must be smaller, because {part.parallel} parallel stages need "
        f"{part.parallel * processes} CUDA devices and {len(devices)} are visible; try a smaller launcher.processes "
        "or launcher.parallel"
    ]
