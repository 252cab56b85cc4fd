"""Recognition of out-of-memory errors."""

import torch


def is_out_of_memory(fault: BaseException | None) -> bool:
    """Return whether an error or its cause is an out-of-memory error. torch.compile wraps errors that occur while it
    benchmarks kernels (`BackendCompilerFailed`, `InductorError`)."""
    if fault is None:
        return False
    if isinstance(fault, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(fault, RuntimeError) and "DefaultCPUAllocator" in str(fault):  # it raises a RuntimeError
        return True
    return is_out_of_memory(getattr(fault, "inner_exception", None)) or is_out_of_memory(fault.__cause__)
