"""One rank of a stage, started by torchrun: ranks.py STAGE_DIR STOP_AT. The last rank is asked to stop at that step."""

import os
import sys
import weakref
from pathlib import Path

import tfscale.training.__main__ as entry
from tfscale.training.loop import Trainer
from tfscale.training.preemption import Preemption

stage_dir, stop_at = Path(sys.argv[1]), int(sys.argv[2])
last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
trainers: list[weakref.ref[Trainer]] = []  # weak: the trainer must not outlive its process group
make = Trainer.__init__


def remember(self: Trainer, *arguments: object) -> None:
    make(self, *arguments)  # type: ignore[arg-type]
    trainers.append(weakref.ref(self))


class Asked(Preemption):
    """Asked to stop from a step on, on the last rank alone."""

    def __call__(self) -> bool:
        trainer = trainers[0]()
        assert trainer is not None
        return last and 0 <= stop_at <= trainer.step


Trainer.__init__ = remember  # type: ignore[method-assign]
sys.exit(entry._train(stage_dir, Asked()))
