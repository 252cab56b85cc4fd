"""Pool of processes that work on the parts of a corpus and report how much they have processed.

The processes always end with their parent process, because they watch a pipe that is closed when the parent ends.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from operator import add
from typing import Any, NamedTuple, Self, TypeVar

from tfscale.data.errors import Unfinished

Result = TypeVar("Result")
Task = tuple[Any, ...]
"""Arguments of one call of the function that the pool runs."""

POLL_SECONDS = 0.2
POOL_BYTES = 1 << 22
"""Total size of the tasks in bytes below which the tasks run in this process, because starting other processes would
take longer."""


class Counts(NamedTuple):
    """Numbers of documents, bytes and tokens that have been processed."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    found: int = 0
    """Number of bytes that an earlier attempt had processed. The results of that attempt were reused."""

    def plus(self, more: "Counts") -> "Counts":
        return Counts(*map(add, self, more))


Watch = Callable[[Counts], None]
"""Type of a callback that receives numbers of processed documents, bytes and tokens."""

_tell: Watch | None = None
"""Function that receives the new counts of this process, or None if counts are not reported."""
_unreported, _reported_at = Counts(), 0.0
"""Counts that have not been passed to `_tell` yet, and the time of the last report (`time.monotonic`) in seconds."""


def count(documents: int = 0, size: int = 0, tokens: int = 0, found: int = 0) -> None:
    """Add to the numbers of documents, bytes and tokens that are reported as progress (`Counts`). Tasks may call this
    function for each document, because counts are passed on only a few times per second."""
    global _unreported
    _unreported = _unreported.plus(Counts(documents, size, tokens, found))
    if time.monotonic() - _reported_at > POLL_SECONDS:
        _pass_on()


def _pass_on() -> None:
    global _unreported, _reported_at
    if _tell is not None:
        _tell(_unreported)
    _unreported, _reported_at = Counts(), time.monotonic()


class Workers:
    """A pool of up to `processes` processes, which start when they are first needed and end with the `with` block."""

    def __init__(self, processes: int) -> None:
        assert processes > 0
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """End the processes immediately. The next preparation repeats unfinished tasks."""
        if self._pool is not None:
            self._keepalive.close()
            self._pool.shutdown(cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        spawn = get_context("spawn")
        self._counts: Any = spawn.Array("Q", [0] * 4)
        theirs, self._keepalive = spawn.Pipe(duplex=False)
        return ProcessPoolExecutor(self._processes, spawn, _begin, (self._counts, theirs))

    def map(self, work: Callable[..., Result], tasks: Sequence[Task], watch: Watch, size: int) -> list[Result]:
        """Call `work` with the arguments of each task, and return the results in the order of the tasks. Two or more
        tasks run in parallel, unless `processes` is 1 or `size` is less than POOL_BYTES.

        Args:
            work: function at the top level of a module, so that it can be sent to other processes.
            watch: function that receives the total counts at the start, a few times per second and at the end.
            size: approximate number of bytes in all tasks.

        Raises:
            Unfinished: a process was killed. Exceptions in `work` are raised unchanged.
        """
        watch(Counts())
        if min(self._processes, len(tasks)) < 2 or size < POOL_BYTES:
            return _do_here(work, tasks, watch)
        self._pool = self._pool or self._start()
        self._counts.get_obj()[:] = [0] * 4  # without the lock, which a killed process may hold
        try:
            results = [self._pool.submit(_do_in_pool, work, *task) for task in tasks]
            pending = set(results)
            while pending:
                done, pending = wait(pending, POLL_SECONDS, FIRST_EXCEPTION)
                for each in done:
                    each.result()
                watch(Counts(*self._counts.get_obj()))
            return [each.result() for each in results]
        except BrokenProcessPool as error:
            raise Unfinished(
                "A process of the preparation was killed, possibly because memory ran out. Run the command again to "
                "resume. To use less memory, set fewer processes: data.workers=..."
            ) from error


def _do_here(work: Callable[..., Result], tasks: Sequence[Task], watch: Watch) -> list[Result]:
    global _tell, _unreported, _reported_at
    total = Counts()

    def tell(more: Counts) -> None:
        nonlocal total
        total = total.plus(more)
        watch(total)

    _tell, _unreported, _reported_at = tell, Counts(), time.monotonic()
    try:
        results = [work(*task) for task in tasks]
        _pass_on()
    finally:
        _tell = None
    return results


def _do_in_pool(work: Callable[..., Result], *task: Any) -> Result:
    result = work(*task)
    _pass_on()
    return result


def _begin(counts: Any, keepalive: Connection) -> None:
    """Initialise a process of the pool. Tasks in this process add to the shared `counts`, and the process ends when its
    parent process ends."""
    global _tell

    def tell(more: Counts) -> None:
        with counts.get_lock():
            counts[:] = Counts(*counts).plus(more)

    def end_with_parent() -> None:
        keepalive.poll(None)  # returns when the other end is closed
        os._exit(1)

    _tell = tell
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its processes
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process per core is enough
    threading.Thread(target=end_with_parent, daemon=True).start()
