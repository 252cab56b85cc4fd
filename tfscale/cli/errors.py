"""Conversion of errors that a command raises to messages and exit codes."""

import errno
from collections.abc import Callable
from pathlib import Path

from tfscale.cli.streams import FAILURE, tell_error
from tfscale.faults import USER_FAULT, UserFault

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers for a full disk. Errors with these numbers do not name a file."""


def in_words(command: Callable[[], object]) -> int:
    """Run a command, print errors, and return the exit code. Errors that may be bugs are raised, with tracebacks."""
    try:
        Path.cwd()
    except FileNotFoundError:
        tell_error("the working folder has been removed; change to another folder and run the command again")
        return USER_FAULT
    try:
        command()
    except UserFault as fault:
        for line in fault.messages:
            tell_error(line)
        return USER_FAULT
    except OSError as error:
        if error.filename is None and error.errno not in FULL:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        tell_error(f"{where}{error.strerror}")
        return FAILURE
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
