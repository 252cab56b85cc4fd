"""The peak memory of a step beside the plan's."""

from benchmarks.cuda.findings import Recorder
from tfscale.bench.agreement import PEAK_SHARE


def bound_peak(record: Recorder, name: str, peak: int | None, planned: int) -> None:
    """Record the bound on a peak; on the CPU, where no allocator knows it, record that there is none."""
    if peak is None:
        record.measured(f"{name}: peak memory", {"not_measured": "the CPU's allocator does not count"})
    else:
        record.bounded(f"{name}: peak memory off the plan's, as a share", abs(peak / planned - 1), PEAK_SHARE)
