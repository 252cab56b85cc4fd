"""Lock that allows only one process at a time to work on a stage."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LOCK_FILE = "lock"


class StageHeld(Exception):
    """Error raised when another running process works on the stage. The message names the process."""


@contextmanager
def stage_lock(stage_dir: Path) -> Iterator[None]:
    """Hold the exclusive lock on the folder of a stage until the end of the `with` block or of the process.

    The lock is a kernel lock (flock) and is therefore never stale. On NFS, the lock works between hosts if the server
    supports locks (NFSv4, or v3 with lockd).

    Raises:
        StageHeld: another process holds the lock.
    """
    path = stage_dir / LOCK_FILE
    with path.open("a+", encoding="utf-8") as file:
        if not _acquire(file):
            raise StageHeld(f"{stage_dir.name} is in use by {read_holder(path)}")
        file.truncate(0)
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _acquire(file: IO[str]) -> bool:
    for _ in range(20):  # several attempts, because `held` acquires the lock for a moment
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def read_holder(path: Path) -> str:
    """Return a description of the process that holds a lock file, with its id, its host, and the time at which it took
    the lock. If the file cannot be read, return `another process`."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "another process"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
    return f"process {holder['pid']} on {holder['host']} since {since}"


def held(stage_dir: Path) -> str | None:
    """Return a description of the process that works on a stage, or None if no process works on it."""
    path = stage_dir / LOCK_FILE
    if not path.exists():
        return None
    with path.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return read_holder(path)
    return None
