"""Launchers, which run stages as processes on this machine or as jobs of a cluster."""

from tfscale.config.machines import LauncherPart
from tfscale.orchestrate.launchers import machine, slurm
from tfscale.orchestrate.launchers.attempt import Launcher
from tfscale.orchestrate.launchers.inherited import left_over as left_over
from tfscale.orchestrate.launchers.inherited import started_as_ranks


def launcher_of(part: LauncherPart) -> Launcher:
    """Return the launcher that the settings name."""
    return slurm.Slurm(part) if part.kind == "slurm" else machine.ThisMachine(part)


def missing(part: LauncherPart) -> list[str]:
    """Return a fault, with its fix, for each requirement of the launcher that this machine does not meet."""
    lacking = slurm.missing_tools() if part.kind == "slurm" else machine.missing_devices(part)
    return [*started_as_ranks(), *lacking]
