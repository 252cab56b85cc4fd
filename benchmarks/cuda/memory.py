"""The peak memory of a step beside the plan's."""

from benchmarks.cuda.bounds import PEAK_SHARE
from benchmarks.cuda.findings import Recorder
from tfscale.models.config import ModelConfig
from tfscale.models.counts import memory
from tfscale.models.execution import Execution, Recompute


def planned_bytes(config: ModelConfig, sequences: int, device: str, recompute: Recompute = "none") -> int:
    """The bytes that the product plans for a training step of so many sequences at once."""
    on_cuda = device == "cuda"
    width = 2 if on_cuda else 4
    return memory(config, Execution(sequences, width, recompute, device=device, compiled=on_cuda)).total


def bound_peak(record: Recorder, name: str, peak: int | None, planned: int) -> None:
    """Record the bound on a peak; on the CPU, where no allocator knows it, record that there is none."""
    if peak is None:
        record.measured(f"{name}: peak memory", {"not_measured": "the CPU's allocator does not count"})
    else:
        record.bounded(f"{name}: peak memory off the plan's, as a share", abs(peak / planned - 1), PEAK_SHARE)
