"""Comparison of the measured with the planned peak memory of a training step."""

from benchmarks.cuda.findings import Recorder
from tfscale.bench.agreement import PEAK_SHARE


def bound_peak(record: Recorder, name: str, peak: int | None, planned: int) -> None:
    """Record the relative difference between the measured and the planned peak memory, with its bound. If `peak` is
    None, as on the CPU, record that the peak was not measured."""
    if peak is None:
        record.measured(f"{name}: peak memory", {"not_measured": "the allocator of the CPU does not report it"})
    else:
        record.bounded(f"{name}: peak memory off the plan's, as a share", abs(peak / planned - 1), PEAK_SHARE)
