"""Functions that start the processes which grow and train a stage, and that return their commands."""

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
    """Return the command of a process that trains a stage, or that grows the last checkpoint of the parent into the
    first checkpoint of the stage.

    When the standard input of the process is closed, training stops with a checkpoint, and growing is killed.

    Args:
        stop_at: step after which training stops with a checkpoint, or None to train to the end of the stage.
    """
    limit = ["--stop-at", str(stop_at)] if phase == "training" and stop_at is not None else []
    return children.python(MODULES[phase], str(stage_dir), "--supervised", *limit, *extension_arguments())


def launch(
    phase: Phase, command: Sequence[str], log: Path | None, variables: Mapping[str, str] = children.NO_VARIABLES
) -> Popen[bytes]:
    """Start a process of a stage. The new process ends with this process.

    Args:
        phase: phase that the process runs. Growing uses different settings of the memory allocator than training.
        log: file for the output of the process, or None to use the output of this process.
        variables: additional environment variables.
    """
    defaults = allocator() | (HUGE_PAGES if phase == "growing" else {})
    with log.open("ab") if log else nullcontext() as output:
        return children.start(command, children.environment(variables, defaults=defaults), stdout=output, stderr=output)


def built_for_devices() -> bool:
    """Return True if the installed torch may support CUDA or ROCm, that is, if it is not a `+cpu` build. The version is
    read without importing torch, which takes a second."""
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return True
