"""Values that a device computes and the host reads later."""

import torch
from torch import Tensor


class Reading:
    """Copy of a tensor to the host. A CUDA device makes the copy when its queue reaches it, and the host does not wait
    for it until it calls `values`. By then, more work may have been queued, for which `values` does not wait."""

    def __init__(self, tensor: Tensor) -> None:
        self._copy = tensor.detach().to("cpu", non_blocking=True)  # in page-locked memory if it comes from CUDA
        self._copied = torch.cuda.Event() if tensor.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def values(self) -> list[float]:
        """Wait for the copy, and return the values of a tensor with one dimension."""
        if self._copied is not None:
            self._copied.synchronize()
        values: list[float] = self._copy.tolist()
        return values
