"""Processes that grow and train a stage: their commands and their start."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from subprocess import Popen

from tfscale import children
from tfscale.extensions import extension_arguments
from tfscale.orchestrate.launchers.attempt import Phase
from tfscale.training.allocator import HUGE_PAGES, allocator

MODULES: Mapping[Phase, str] = {"growing": "tfscale.growth", "training": "tfscale.training"}


def stage_command(phase: Phase, stage_dir: Path, stop_at: int | None = None) -> list[str]:
    """Return the command of a process that trains a stage, up to the step `stop_at` unless it is None, or that grows
    the last checkpoint of the parent into the first checkpoint of the stage. When the standard input of the process is
    closed, a training process stops with a checkpoint, and a growing process is killed."""
    limit = ["--stop-at", str(stop_at)] if phase == "training" and stop_at is not None else []
    return children.python(MODULES[phase], str(stage_dir), "--supervised", *limit, *extension_arguments())


def launch(
    phase: Phase, command: Sequence[str], log: Path | None, variables: Mapping[str, str] | None = None
) -> Popen[bytes]:
    """Start a process of a stage. The process ends when this process ends. Its output goes to the file `log` or, if
    `log` is None, to the output of this process. The settings of its memory allocator depend on `phase`."""
    defaults = allocator() | (HUGE_PAGES if phase == "growing" else {})
    with log.open("ab") if log else nullcontext() as output:
        return children.start(command, children.environment(variables, defaults=defaults), stdout=output, stderr=output)


def built_for_devices() -> bool:
    """Return True if the installed torch, which is not imported here, may support CUDA or ROCm."""
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return True
