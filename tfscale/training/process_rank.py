"""Rank of a training process, read from the environment variables that torchrun and clusters set."""

import math
import os
from dataclasses import dataclass

from tfscale.faults import UserFault


@dataclass(frozen=True)
class ProcessRank:
    """Rank of a process among the `size` processes that train a stage. The defaults describe a single process."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Rank of the process among the processes on its host."""
    local_size: int = 1
    """Number of training processes on this host."""


def read_process_rank() -> ProcessRank:
    """Return the rank of this process and the number of processes, read from environment variables. If neither RANK nor
    WORLD_SIZE is set, there is only one process.

    Raises:
        UserFault: variables are missing, not numbers, or out of range. The message names all such variables.
    """
    if not {"RANK", "WORLD_SIZE"} & os.environ.keys():
        return ProcessRank()
    faults: list[str] = []

    def number(name: str, lowest: int, highest: float = math.inf, default: str | None = None) -> int:
        value = os.environ.get(name, default)
        if value and value.isdecimal() and lowest <= int(value) <= highest:
            return int(value)
        allowed = f"a whole number from {lowest}" + (f" to {highest}" if highest < math.inf else "")
        faults.append(_fault(name, allowed))
        return lowest

    size = number("WORLD_SIZE", 1)
    rank = number("RANK", 0, math.inf if faults else size - 1)
    process = ProcessRank(rank, size, number("LOCAL_RANK", 0, default="0"), number("LOCAL_WORLD_SIZE", 1, default="1"))
    if size > 1:
        number("MASTER_PORT", 1, 65535)
        if not os.environ.get("MASTER_ADDR"):
            faults.append(_fault("MASTER_ADDR", "the address of the host of rank 0"))
    if faults:
        raise UserFault(faults)
    return process


def _fault(name: str, allowed: str) -> str:
    setting = f"{name}={os.environ[name]}" if name in os.environ else f"{name} is not set"
    return (
        f"{setting}: must be {allowed}; try torchrun, which sets {name}, or unset RANK and WORLD_SIZE to train in one "
        "process"
    )
