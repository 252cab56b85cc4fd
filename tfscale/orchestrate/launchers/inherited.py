"""Checks for rank variables in the environment of tfscale itself, which starts the ranks of a stage but is not one."""

import os

from tfscale.children import RANK_VARIABLES


def started_as_ranks() -> list[str]:
    """Return a fault if torchrun has started tfscale several times at once; otherwise an empty list."""
    size = os.environ.get("WORLD_SIZE", "")
    if "TORCHELASTIC_RUN_ID" not in os.environ or not size.isdecimal() or int(size) < 2:
        return []
    return [
        f"WORLD_SIZE={size}: must be 1 where torchrun starts tfscale itself; start tfscale once without torchrun, and "
        f"launcher=torchrun launcher.processes={size} starts the ranks"
    ]


def left_over() -> str | None:
    """Return a note on rank variables of another launcher or shell, which have no effect; None if there are none."""
    if not {"RANK", "WORLD_SIZE"} & os.environ.keys() or os.environ.get("WORLD_SIZE") == "1":
        return None
    names = ", ".join(name for name in RANK_VARIABLES if name in os.environ)
    return f"{names} in the environment have no effect; launcher=torchrun and launcher=slurm start ranks themselves"
