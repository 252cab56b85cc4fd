"""Work in a process of its own, and what memory it took there (Linux)."""

import ctypes
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
"""Whether the peak of a process can be told."""
M_MMAP_THRESHOLD = -3
"""In glibc's malloc.h."""


@cache
def _server() -> ForkServerContext:
    # Its children have everything imported and nothing done: they start at once, and none sees another's memory.
    context = get_context("forkserver")
    context.set_forkserver_preload(["tfscale.bench.pattention", "tfscale.bench.step", "tfscale.bench.growth"])
    return context


def apart(function: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """What the function, which a module must name, returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=_server()) as pool:
        return pool.submit(function, *given, **named).result()


def peak_above(run: Callable[[], object]) -> int:
    """Largest resident bytes of this process during a run, above those before it."""
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    run()
    return _status("VmHWM") - before


def exact_memory() -> None:
    """From now on glibc gives every allocation above 64 KiB a mapping of its own: what is freed is then free."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 65536)


def resident() -> int:
    """Bytes of this process that are in memory."""
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
