"""Writer of a stage's checkpoints."""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from tfscale import checkpoint
from tfscale.checkpoint import Counters, Part
from tfscale.stage.events import EventLog
from tfscale.stage.spec import CHECKPOINTS, StageSpec, steps_of
from tfscale.training.world import World


class Saver:
    """Writer of the checkpoints of a stage, one at a time. Each rank writes its own shards of the tensors.

    With `beside_training`, tensors are copied to host memory, and a thread writes the copies while training continues.
    `save` and `wait` are collective calls; a failure on one rank raises an error on every rank.
    """

    def __init__(self, stage_dir: Path, spec: StageSpec, log: EventLog, world: World, beside_training: bool) -> None:
        self.folder = stage_dir / CHECKPOINTS
        self.step: int | None = None
        """Step of the newest checkpoint, even if it is still being written, or None if there is no checkpoint."""
        self._spec, self._log, self._beside = spec, log, beside_training
        self._ranks = world.beside() if beside_training else world
        self._saved_at = time.monotonic()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._write: Future[None] | None = None

    def due(self, step: int, by_tokens: bool) -> bool:
        """Return whether a checkpoint is due at a step, because of the number of tokens (`by_tokens`) or because at
        least `checkpoint_minutes` have passed. Return False if the last checkpoint is from this step."""
        late = time.monotonic() - self._saved_at >= 60 * self._spec.run.checkpoint_minutes
        return step != self.step and (by_tokens or late)

    def newest(self, step: int) -> str | None:
        """Delete incomplete checkpoints, and return the folder name of the newest complete checkpoint, or None if there
        is none. Each newer checkpoint that is broken is renamed and recorded as an event at `step`."""
        checkpoint.sweep(self.folder)
        found = checkpoint.latest(
            self.folder, lambda fault: self._log.write("broken_checkpoint", step=step, message=fault)
        )
        return found.name if found else None

    def save(self, counters: Counters, tensors: Mapping[str, Tensor | Part]) -> None:
        """Write a checkpoint, record it as a `checkpoint` event once it is on disk, and remove old checkpoints. With
        `beside_training`, return as soon as the tensors have been copied.

        Raises:
            OSError: this write or the previous write failed; the checkpoint before the failed write is complete.
        """
        self.wait()
        self._log.sync()
        self.step, self._saved_at = counters.step, time.monotonic()
        if self._beside:
            copies = {name: _copy(tensor) for name, tensor in tensors.items()}
            self._write = self._thread.submit(self._save, counters, copies)
        else:
            self._save(counters, tensors)

    def wait(self) -> None:
        """Wait until no checkpoint is being written. Raise OSError if a checkpoint could not be written."""
        if self._write is not None:
            write, self._write = self._write, None
            write.result()

    def prune(self, keep: int) -> None:
        """Remove all checkpoints except the newest `keep` checkpoints and the permanent checkpoints (`keep_tokens`)."""
        tokens = self._spec.run.keep_tokens
        checkpoint.prune(self.folder, keep, every=steps_of(tokens, self._spec) if tokens else 0)

    def _save(self, counters: Counters, tensors: Mapping[str, Tensor | Part]) -> None:
        started = time.perf_counter()
        name = checkpoint.folder_name(counters.step)
        size = checkpoint.write(self.folder / name, self._spec.model, counters, tensors, self._ranks)
        if self._ranks.leads:
            self.prune(self._spec.run.keep)
        seconds = time.perf_counter() - started
        self._log.write("checkpoint", step=counters.step, name=name, bytes=size, seconds=seconds)


def _copy(value: Tensor | Part) -> Tensor | Part:
    if isinstance(value, Part):
        return Part(value.data.detach().to("cpu", copy=True), value.offsets)
    return value.detach().to("cpu", copy=True)
