"""When and how a stage's checkpoints are written."""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tfscale import checkpoint
from tfscale.checkpoint import Counters
from tfscale.training.events import EventLog
from tfscale.training.spec import CHECKPOINTS, StageSpec, steps_of


@dataclass(frozen=True)
class _Write:
    step: int
    future: Future[None]


class Saver:
    """Writes the checkpoints of a stage; never two at once.

    Beside training, where it pays: the tensors are copied to host memory, and a thread writes them. The event of a
    checkpoint is logged when it is on disk.
    """

    def __init__(self, stage_dir: Path, spec: StageSpec, log: EventLog, beside_training: bool) -> None:
        self.folder = stage_dir / CHECKPOINTS
        self.step: int | None = None
        """Of the newest checkpoint, written or being written."""
        self._spec, self._log, self._beside = spec, log, beside_training
        self._saved_at = time.monotonic()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._write: _Write | None = None

    def due(self, step: int, by_tokens: bool) -> bool:
        """Whether a checkpoint is due after `step`, by its tokens or by the clock."""
        late = time.monotonic() - self._saved_at >= 60 * self._spec.run.checkpoint_minutes
        return step != self.step and (by_tokens or late)

    def save(self, counters: Counters, tensors: Mapping[str, Tensor]) -> None:
        """Writes a checkpoint, or begins to.

        Raises:
            OSError: this write or the one before it failed; the checkpoint before that is whole.
        """
        self.wait()
        self._log.sync()
        self.step, self._saved_at = counters.step, time.monotonic()
        if self._beside:
            tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            self._write = _Write(counters.step, self._thread.submit(self._save, counters, tensors))
        else:
            self._save(counters, tensors)

    def wait(self) -> None:
        """Returns when nothing is being written.

        Raises:
            OSError: what was being written could not be.
        """
        if self._write is not None:
            write, self._write = self._write, None
            write.future.result()

    def finish(self) -> None:
        """Leaves the newest checkpoint, and those that stay for good."""
        self.wait()
        self._prune(1)

    def _save(self, counters: Counters, tensors: Mapping[str, Tensor]) -> None:
        started = time.perf_counter()
        name = checkpoint.folder_name(counters.step)
        checkpoint.write(self.folder / name, self._spec.model, counters, tensors)
        self._prune(self._spec.run.keep)
        seconds = time.perf_counter() - started
        size = sum(tensor.nbytes for tensor in tensors.values())
        self._log.write("checkpoint", step=counters.step, name=name, bytes=size, seconds=seconds, time=time.time())

    def _prune(self, keep: int) -> None:
        tokens = self._spec.run.keep_tokens
        every = steps_of(tokens, self._spec) if tokens else 0
        checkpoint.prune(self.folder, keep, every)
