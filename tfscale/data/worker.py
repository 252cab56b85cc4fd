"""python -m tfscale.data.worker: does the tasks that it is sent, until nobody sends any more."""

import os
import queue
import sys
import threading
import time
import traceback
from typing import IO, Any

from tfscale.data.assemble import write_shard
from tfscale.data.duplicates import find_duplicates
from tfscale.data.encode import encode
from tfscale.data.errors import DataError
from tfscale.data.scan import scan
from tfscale.data.wire import read_line, write_line
from tfscale.data.workers import POLL_SECONDS, Counts, tell

WORK = {each.__name__: each for each in (scan, find_duplicates, encode, write_shard)}


def main() -> None:
    """Reads tasks from standard input, and writes counts and results to standard output."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, tasks), daemon=True).start()
    while True:
        name, task = tasks.get()
        write_line(answers, _do(name, task, answers))


def _listen(lines: IO[bytes], tasks: "queue.SimpleQueue[Any]") -> None:
    while (task := read_line(lines)) is not None:
        tasks.put(task)
    os._exit(0)  # the process that sent them has ended, or wants no more


def _do(name: str, task: Any, answers: IO[bytes]) -> tuple[Any, ...]:
    tally = _Tally(answers)
    tell(tally.add)
    try:
        result = WORK[name](task)
    except DataError as fault:
        return "fault", str(fault)
    except OSError as error:
        return "os", error.errno, error.strerror, str(error.filename) if error.filename else None
    except Exception:
        return "failed", traceback.format_exc()
    tally.write()
    return "done", result


class _Tally:
    """Adds counts up, so that they are sent a few times a second."""

    def __init__(self, answers: IO[bytes]) -> None:
        self._answers = answers
        self._counts, self._written = Counts(), time.monotonic()

    def add(self, more: Counts) -> None:
        self._counts += more
        if time.monotonic() - self._written > POLL_SECONDS:
            self.write()

    def write(self) -> None:
        write_line(self._answers, ("counted", self._counts))
        self._counts, self._written = Counts(), time.monotonic()


if __name__ == "__main__":
    main()
