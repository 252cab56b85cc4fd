"""Execution of a function in a separate process, and measurement of the peak memory of a function call."""

import ctypes
import gc
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

KNOWN = sys.platform == "linux"
"""True if the peak memory of a process can be measured on this system."""


def run_apart(function: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """Run a top-level function of a module in a separate process, and return the result of the function."""
    # Children of a fork server start with the preloaded module, and without the memory of other children.
    server = get_context("forkserver")
    server.set_forkserver_preload(["tfscale.bench.step"])
    with ProcessPoolExecutor(1, mp_context=server) as pool:
        return pool.submit(function, *given, **named).result()


def measure_peak(run: Callable[[], object], warm_up: Callable[[], object] | None = None) -> int:
    """Call `run` and return its peak memory in bytes: the largest resident memory of this process during the call,
    minus the resident memory before the call. `warm_up`, if given, is called first, so that persistent buffers are not
    counted. The process should not be used for other work, because this function sets glibc to return large freed
    allocations immediately."""
    ctypes.CDLL(None).mallopt(-3, 65536)  # M_MMAP_THRESHOLD: every larger allocation gets a mapping of its own
    if warm_up:
        warm_up()
    gc.collect()
    before = _read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    run()
    return _read_status("VmHWM") - before


def _read_status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
