"""Questions about processes that may end while they are asked."""

import psutil


def alive(*processes: psutil.Process) -> bool:
    """Return True if one of the processes has not ended. A zombie counts as ended."""
    return any(_is_alive(process) for process in processes)


def pid_is_alive(pid: int) -> bool:
    """Return True if the process with this number has not ended."""
    try:
        return alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def command_line(process: psutil.Process) -> list[str]:
    """Return the command line of a process, empty if it has ended."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # a zombie is of the first kind
        return []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
