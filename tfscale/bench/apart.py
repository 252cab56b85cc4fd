"""Running of functions in a process of their own, and the peak memory that they take there (Linux)."""

import ctypes
import gc
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

KNOWN = sys.platform == "linux"
"""True if the peak memory of a process is known."""


def run_apart(function: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """Run a function that is defined at the top level of a module in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=_server()) as pool:
        return pool.submit(function, *given, **named).result()


@cache
def _server() -> ForkServerContext:
    # Children of a fork server start with everything imported and with no other child's memory.
    context = get_context("forkserver")
    context.set_forkserver_preload(["tfscale.bench.step"])
    return context


def measure_peak(run: Callable[[], object], warm_up: Callable[[], object] | None = None) -> int:
    """Return the peak resident bytes of this process during a run, above those before it.

    The process should do nothing else: from now on glibc returns freed memory at once.

    Args:
        warm_up: runs first, so that buffers which stay are not counted.
    """
    ctypes.CDLL(None).mallopt(-3, 65536)  # M_MMAP_THRESHOLD: each larger allocation is a mapping of its own
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
