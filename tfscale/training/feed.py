"""Supply of training batches to a device."""

from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from tfscale.data.batches import Batches
from tfscale.training.device import Device


class Feed:
    """Supply of the training batches of one rank to its device. If the device executes queued work asynchronously, a
    thread prepares the batch of the next step in page-locked memory during the current step, and the host does not wait
    for the copy to the device.

    Args:
        rows: number of sequences of a batch on this rank.
        stride: number of sequences in the batch of all ranks. This rank's sequences of the next step begin `stride`
            sequences after those of the current step.
    """

    def __init__(self, batches: Batches, rows: int, stride: int, device: Device) -> None:
        self._batches, self._rows, self._stride, self._device = batches, rows, stride, device
        self._thread = ThreadPoolExecutor(1, "batches") if device.queues else None
        self._ahead: tuple[int, Future[Tensor]] | None = None

    def batch(self, first: int) -> Tensor:
        """Return the inputs and targets, int64 [2, rows, context], of this rank's sequences, starting at the sequence
        with index `first`."""
        if self._thread is None:
            return self._prepared(first)
        ahead = self._ahead
        prepared = ahead[1].result() if ahead is not None and ahead[0] == first else self._prepared(first)
        self._ahead = first + self._stride, self._thread.submit(self._prepared, first + self._stride)
        return prepared.to(self._device.kind, non_blocking=True)

    def _prepared(self, first: int) -> Tensor:
        batch = self._batches.sequences(first, self._rows)
        return batch.pin_memory() if self._device.kind == "cuda" else batch
