"""Where stages run: as processes of this machine, or as jobs of a cluster."""

from tfscale.config.schema import LauncherPart
from tfscale.schedule.launchers import machine, slurm
from tfscale.schedule.launchers.ahead import dismiss_early
from tfscale.schedule.launchers.attempt import Launcher


def launcher_of(part: LauncherPart) -> Launcher:
    """The launcher that `launcher=` means."""
    if part.kind != "local":
        dismiss_early()  # torchrun and jobs start processes of their own
    return slurm.Slurm(part) if part.kind == "slurm" else machine.ThisMachine(part)


def missing(part: LauncherPart) -> list[str]:
    """What the launcher needs and this machine has not, each fault with its mend."""
    return slurm.missing_tools() if part.kind == "slurm" else machine.missing_devices(part)
