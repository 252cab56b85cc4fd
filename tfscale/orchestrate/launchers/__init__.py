"""Launchers, which run stages as processes on this machine or as jobs of a cluster."""

import os

from tfscale.children import RANK_VARIABLES
from tfscale.config.machines import LauncherPart
from tfscale.orchestrate.launchers import machine, slurm
from tfscale.orchestrate.launchers.attempt import Launcher


def launcher_of(part: LauncherPart) -> Launcher:
    return slurm.Slurm(part) if part.kind == "slurm" else machine.ThisMachine(part)


def missing(part: LauncherPart) -> list[str]:
    """Return a fault, with its fix, for each requirement of the launcher that this machine does not meet."""
    lacking = slurm.missing_tools() if part.kind == "slurm" else machine.missing_devices(part)
    return [*_started_as_ranks(), *lacking]


def left_over() -> str | None:
    """Return a message that rank variables in the environment, such as RANK and WORLD_SIZE, have no effect. Return None
    if there are no such variables or WORLD_SIZE is 1."""
    if not {"RANK", "WORLD_SIZE"} & os.environ.keys() or os.environ.get("WORLD_SIZE") == "1":
        return None
    names = ", ".join(name for name in RANK_VARIABLES if name in os.environ)
    return f"the variables {names} have no effect, because launcher=torchrun and launcher=slurm start the ranks"


def _started_as_ranks() -> list[str]:
    """Return a list that contains a fault if torchrun has started several tfscale processes, and is empty otherwise."""
    size = os.environ.get("WORLD_SIZE", "")
    if "TORCHELASTIC_RUN_ID" not in os.environ or not size.isdecimal() or int(size) < 2:
        return []
    return [
        f"WORLD_SIZE={size}: must be 1, because tfscale starts the ranks; try starting tfscale without torchrun and "
        f"with launcher=torchrun launcher.processes={size}"
    ]
