"""Cores and memory of this host, as far as they concern this process."""

import os
import resource
import sys


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_peak_memory() -> int:
    """Largest resident size of this process so far, in bytes; mapped files count while they are in memory."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
