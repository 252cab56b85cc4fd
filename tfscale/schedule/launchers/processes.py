"""The processes that a stage is made of, and how they are started."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tfscale.schedule.launchers.attempt import Phase
from tfscale.training.allocator import HUGE_PAGES, allocator


def training_command(stage_dir: Path) -> list[str]:
    """A process that trains a stage and stops when its standard input ends."""
    return [sys.executable, "-m", "tfscale.training", str(stage_dir), "--supervised"]


def growing_command(stage_dir: Path) -> list[str]:
    """A process that grows a stage's first checkpoint out of its parent's last one."""
    return [sys.executable, "-m", "tfscale.schedule.growing", str(stage_dir)]


def waiting_command(phase: Phase) -> list[str]:
    """A process that does the same as one of these when its standard input names the stage."""
    return [sys.executable, "-m", "tfscale.schedule.waiting", phase]


def launch(
    phase: Phase, command: Sequence[str], log: Path | None, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a process of its own session, whose standard input ends with us.

    Args:
        phase: what it does; a growth hands out memory in another way.
        log: where its output goes; None: where ours does.
        environment: in addition to ours, which may say otherwise about the allocator.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with log.open("ab") if log else nullcontext() as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**allocator(), **(HUGE_PAGES if phase == "growing" else {}), **ours, **(environment or {})},
            start_new_session=True,  # Ctrl-C reaches us alone; we pass it on
        )


def built_for_devices() -> bool:
    """Whether the installed torch may know CUDA or ROCm: all but the builds that are marked `+cpu`. The name of the
    version is enough for those, and importing all of torch takes a second."""
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return True
