"""Communication between the processes that train a stage. torchrun or a cluster may start several such processes."""

import gc

import torch
import torch.distributed as dist

from tfscale.checkpoint import Ranks
from tfscale.training.process_rank import read_process_rank


class World(Ranks):
    """All ranks of a stage, with their process group. The constructor connects the ranks.

    Raises:
        UserFault: the environment variables do not specify the rank of this process or the number of ranks.
        RuntimeError: the ranks could not connect.
    """

    def __init__(self) -> None:
        process = read_process_rank()
        super().__init__(process.rank, process.size)
        self.local_size = process.local_size
        """Number of ranks on this host."""
        if self.size > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")

    def beside(self) -> Ranks:
        """Return a group of the same ranks that communicates through a separate process group, so that a second thread
        can make its own collective calls. This is a collective call."""
        return Ranks(self.rank, self.size, dist.new_group(backend="gloo") if self.size > 1 else None)

    def close(self) -> None:
        """Destroy the process group of all ranks."""
        if self.size > 1:
            gc.collect()  # DDP objects in reference cycles still refer to the group and must not outlive it
            dist.destroy_process_group()


def split_rows(sequences: int, world: Ranks) -> int:
    """Return the number of sequences of each rank in a batch of `sequences` sequences. Raise ValueError if the
    sequences cannot be divided evenly among the ranks."""
    if sequences % world.size:
        raise ValueError(
            f"a batch of {sequences} sequences (optim.batch_tokens) cannot be divided evenly among {world.size} "
            f"processes; use a number of processes that divides {sequences}"
        )
    return sequences // world.size
