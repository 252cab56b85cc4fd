"""Asynchronous copies of values from a device to the host."""

import torch
from torch import Tensor


class Reading:
    """Asynchronous copy of a tensor to the host. A CUDA device makes the copy after the work that is already queued.
    The host waits for the copy only in `values`, which does not wait for work that was queued later."""

    def __init__(self, tensor: Tensor) -> None:
        self._copy = tensor.detach().to("cpu", non_blocking=True)  # in page-locked memory if it comes from CUDA
        self._copied = torch.cuda.Event() if tensor.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def values(self) -> list[float]:
        """Wait for the copy of a one-dimensional tensor, and return the values."""
        if self._copied is not None:
            self._copied.synchronize()
        values: list[float] = self._copy.tolist()
        return values
