"""Commands of the processes that grow and train a stage, and a function that starts these processes."""

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
    """Return the command of the process that runs a phase of a stage. In the phase `growing`, the process writes the
    first checkpoint of the stage from the weights that the stage inherits. In the phase `training`, it trains the
    stage, only up to the step `stop_at` if this is not None. When its standard input is closed, a training process
    saves a checkpoint and stops, and a growing process is killed."""
    limit = ["--stop-at", str(stop_at)] if phase == "training" and stop_at is not None else []
    return children.python(MODULES[phase], str(stage_dir), "--supervised", *limit, *extension_arguments())


def launch(
    phase: Phase, command: Sequence[str], log: Path | None, variables: Mapping[str, str] | None = None
) -> Popen[bytes]:
    """Start a process that runs a phase of a stage, and that ends when this process ends. The output of the new process
    is appended to the file `log` or, if `log` is None, goes to the output of this process. The memory allocator of the
    new process is configured for the phase."""
    defaults = allocator() | (HUGE_PAGES if phase == "growing" else {})
    with log.open("ab") if log else nullcontext() as output:
        return children.start(command, children.environment(variables, defaults=defaults), stdout=output, stderr=output)


def built_for_devices() -> bool:
    """Return True if the installed torch may support CUDA or ROCm. Only the version of the package is checked; torch is
    not imported."""
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return True
