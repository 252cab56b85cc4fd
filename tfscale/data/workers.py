"""The same work on many tasks, by several processes, with a count of what they have got through.

The processes are `tfscale.data.worker`s, which are spoken to in lines of JSON through pipes. They end with the process
that started them, however that ends.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from subprocess import PIPE
from threading import Lock
from types import TracebackType
from typing import Any, Self, TypeVar

from tfscale import children
from tfscale.data.errors import DataError, Unfinished
from tfscale.data.wire import read_line, write_line

Task = TypeVar("Task")
Result = TypeVar("Result")

POLL_SECONDS = 0.2
PROCESS_BYTES = 1 << 22
"""Less than so much for each process is not worth starting it."""


@dataclass(frozen=True)
class Counts:
    """What has been got through."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    found: int = 0
    """Bytes that an earlier attempt had got through."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.documents + other.documents,
            self.bytes + other.bytes,
            self.tokens + other.tokens,
            self.found + other.found,
        )


Watch = Callable[[Counts], None]

_teller: Watch | None = None
"""Who is told what this process gets through."""


def count(documents: int = 0, size: int = 0, tokens: int = 0, found: int = 0) -> None:
    """Called by the work, now and then, with what it has got through since."""
    if _teller is not None:
        _teller(Counts(documents, size, tokens, found))


def tell(teller: Watch | None) -> None:
    """Says who is told of what this process counts."""
    global _teller
    _teller = teller


class Workers:
    """Up to `processes` processes, started when they are first needed and ended with the `with` block."""

    def __init__(self, processes: int) -> None:
        assert processes > 0
        self._processes = processes
        self._started: list[_Process] = []
        self._free: SimpleQueue[_Process] = SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def map(self, work: Callable[[Task], Result], tasks: Sequence[Task], watch: Watch, size: int) -> list[Result]:
        """The results of `work`, which a worker knows, on each task, in the tasks' order.

        Args:
            watch: is told all that has been counted, at the beginning, now and then and at the end.
            size: bytes, of all tasks, about; little is done in this process.

        Raises:
            Unfinished: a process was killed. What the work raises is raised here.
        """
        sum_ = _Sum()
        watch(sum_.counts)
        number = min(self._processes, len(tasks), 1 + size // PROCESS_BYTES)
        results = self._here(work, tasks, watch, sum_) if number < 2 else self._there(number, work, tasks, watch, sum_)
        watch(sum_.counts)
        return results

    def _here(self, work: Callable[[Task], Result], tasks: Sequence[Task], watch: Watch, sum_: "_Sum") -> list[Result]:
        told = time.monotonic()

        def teller(more: Counts) -> None:
            nonlocal told
            sum_.add(more)
            if time.monotonic() - told > POLL_SECONDS:
                told = time.monotonic()
                watch(sum_.counts)

        tell(teller)
        try:
            return [work(task) for task in tasks]
        finally:
            tell(None)

    def _there(
        self, number: int, work: Callable[[Task], Result], tasks: Sequence[Task], watch: Watch, sum_: "_Sum"
    ) -> list[Result]:
        while len(self._started) < number:
            self._started.append(_Process())
            self._free.put(self._started[-1])

        def run(task: Task) -> Any:
            process = self._free.get()
            try:
                return process.run(work.__name__, task, sum_.add)
            finally:
                self._free.put(process)

        with ThreadPoolExecutor(number) as threads:
            results = [threads.submit(run, task) for task in tasks]
            try:
                while wait(results, POLL_SECONDS, FIRST_EXCEPTION).not_done:
                    watch(sum_.counts)
                    for each in results:
                        if each.done():
                            each.result()
                return [each.result() for each in results]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                self._end()
                raise

    def _end(self) -> None:
        for process in self._started:
            process.end()
        self._started.clear()


class _Sum:
    """Of counts that come from several threads."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._lock = Lock()

    def add(self, more: Counts) -> None:
        with self._lock:
            self.counts += more


class _Process:
    def __init__(self) -> None:
        one_thread = {"TOKENIZERS_PARALLELISM": "false"}  # one process per core is enough
        command, environment = children.python("tfscale.data.worker"), children.environment(one_thread)
        self._process = children.start(command, environment, stdout=PIPE)

    def run(self, work: str, task: Any, watch: Watch) -> Any:
        """The result of a task, which the process does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            write_line(self._process.stdin, (work, task))
            while (answer := read_line(self._process.stdout)) is not None:
                match answer:
                    case ("counted", counts):
                        watch(counts)
                    case ("done", result):
                        return result
                    case ("fault", words):
                        raise DataError(words)
                    case ("os", code, words, file):
                        raise OSError(code, words, file)
                    case ("failed", trace):
                        raise RuntimeError(f"in a process of the preparation:\n{trace}")
        except BrokenPipeError:
            pass
        raise Unfinished(
            "a process of the preparation was killed, perhaps for want of memory. Run it again: it goes on where it "
            "was. Fewer processes need less memory: data.workers=..."
        )

    def end(self) -> None:
        """Kills it; what it has begun is made again."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
