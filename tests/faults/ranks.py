"""Train some stages as one rank that torchrun has started: ranks.py RANKS_A_HOST FAULT (STAGE_DIR STOP_AT)...

The stages are trained one after another. Only the last rank is asked to stop a stage, after STOP_AT steps (-1: never).
FAULT is the fault of the last rank in the second step of the only stage: `none`, `out_of_memory`, or `non_finite`, an
infinite gradient in its share of one weight. With `late` there is no fault, but all ranks read losses late, as on CUDA
devices.
"""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

import tfscale.training.__main__ as entry
from tfscale.faults import PREEMPTED
from tfscale.training.device import Device
from tfscale.training.loop import Trainer
from tfscale.training.preemption import Preemption
from tfscale.training.world import World

os.environ["LOCAL_WORLD_SIZE"], fault, *stages = sys.argv[1:]
last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
train_step, gradients = Trainer._train_step, Trainer._gradients


class Asked(Preemption):
    """Request to stop after a number of steps."""

    steps = 0

    def __init__(self, stop_at: int) -> None:
        super().__init__()
        self._last_step = stop_at

    def __call__(self) -> bool:
        return last and 0 <= self._last_step <= self.steps


def counting(self: Trainer) -> None:
    train_step(self)
    assert isinstance(self.preempted, Asked)
    self.preempted.steps = self.step


def failing(self: Trainer, inputs: Tensor, targets: Tensor) -> Tensor:
    meets = last and self.step == 1
    if meets and fault == "out_of_memory":
        raise torch.OutOfMemoryError("no memory is left")
    loss = gradients(self, inputs, targets)
    if meets:
        shares = self.state.model.get_parameter("blocks.0.ffn.values").grad
        assert isinstance(shares, DTensor)
        shares.to_local().fill_(torch.inf)
    return loss


Trainer._train_step = counting  # type: ignore[method-assign]
if fault == "late":
    Device.queues = True  # type: ignore[assignment, method-assign]
elif fault != "none":
    Trainer._gradients = failing  # type: ignore[method-assign]
    sys.exit(entry._train(Path(stages[0]), Asked(-1)))
world = World()
done = [
    entry._stage(Path(folder), Asked(int(stop_at)), world)
    for folder, stop_at in zip(stages[::2], stages[1::2], strict=True)
]
world.close()
sys.exit(0 if all(done) else PREEMPTED)
