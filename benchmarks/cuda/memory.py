"""Comparison of the peak memory of a step with the plan."""

from benchmarks.cuda.findings import Recorder
from tfscale.bench.agreement import PEAK_SHARE


def bound_peak(record: Recorder, name: str, peak: int | None, planned: int) -> None:
    """Record the relative difference of a peak from the plan, with its bound. On the CPU, where the peak is unknown,
    record that it was not measured."""
    if peak is None:
        record.measured(f"{name}: peak memory", {"not_measured": "the allocator of the CPU does not report it"})
    else:
        record.bounded(f"{name}: peak memory off the plan's, as a share", abs(peak / planned - 1), PEAK_SHARE)
