"""Processes that end together with the process that started them.

`python -m tfscale.end_with_input COMMAND...` runs a command and exits with the exit code of the command. When standard
input ends, the command and its child processes are interrupted, and killed if they do not exit.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from tfscale.children import python

PATIENCE_SECONDS = 5.0
"""Time in seconds that a command has to exit after it is interrupted, before it is killed."""


def until_input_ends(command: Sequence[str]) -> list[str]:
    """Return a command that runs the given command and ends it when standard input ends."""
    return python("tfscale.end_with_input", *command)


def end_with_input() -> None:
    """Start a thread that kills this process when standard input ends. If this process is the leader of a process
    group, the thread kills the whole group."""
    _when_input_ends(_kill)


def main() -> int:
    """Run the command in `sys.argv[1:]` and return its exit code. If standard input ends first, end the command and
    kill this process."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, lambda number, frame: None)  # unlike SIG_IGN, this is not inherited
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)

    def end() -> None:
        os.killpg(0, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_SECONDS)
        _kill()

    _when_input_ends(end)
    return process.wait()


def _when_input_ends(then: Callable[[], object]) -> None:
    def wait() -> None:
        while os.read(0, 4096):
            pass
        then()

    threading.Thread(target=wait, daemon=True).start()


def _kill() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
