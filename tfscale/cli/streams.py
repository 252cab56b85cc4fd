"""Streams that replace standard output and standard error and whose writes never fail, and functions that print errors.

A run can take days, and the terminal, file or pipe to which it writes may be full, closed or removed before the run
ends. Bytes that cannot be written are dropped, and the first error is kept for the exit code. Characters that the
encoding lacks are replaced.
"""

import codecs
import errno
import io
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tfscale.faults import USER_FAULT, UserFault

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FAILURE = 1
"""Exit code of a command that failed or could not print all of its output."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk and of an exceeded disk quota. Such an error may lack the name of the file."""
_PLAIN = {"→": "->", "±": "+-", "–": "-", "…": "..."}
"""Replacements of characters that the encoding of standard output may lack. Other characters become question marks."""


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in lacking), error.end


codecs.register_error("tfscale", _replace)


class Stream(io.FileIO):
    """Output stream of bytes whose writes never fail."""

    def __init__(self, descriptor: int, closed_before: bool = False) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.lost: OSError | None = None
        """First error of a write, or None if all data have been written."""
        self.reported = False
        """True if the loss of output has been reported."""
        self._closed_before = closed_before

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write data, or drop them if an error occurs. Return the number of bytes that were written or dropped."""
        try:
            if self._closed_before:
                raise OSError(errno.EBADF, "the stream is closed")
            while (written := super().write(data)) is None:  # the reader has made the stream non-blocking
                select.select([], [self], [])
        except OSError as error:
            self.lost = self.lost or error
            return memoryview(data).nbytes
        return written


def open_streams() -> None:
    """Replace standard output and standard error with streams whose writes never fail. Standard streams that the shell
    has closed are opened as the null device; otherwise, the next opened file would get the file descriptor of a closed
    stream and receive the output of child processes."""
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)
    sys.stdout = _enduring(sys.stdout, "tfscale")
    sys.stderr = _enduring(sys.stderr, "backslashreplace")


def _enduring(stream: TextIO | None, errors: str) -> TextIO:
    if stream is None:
        closed = Stream(os.open(os.devnull, os.O_RDWR), closed_before=True)
        return io.TextIOWrapper(io.BufferedWriter(closed), encoding="utf-8", errors=errors)
    if type(stream) is not io.TextIOWrapper:
        return stream  # a replacement, set by the caller of main()
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(Stream(stream.fileno())),
        encoding=stream.encoding,
        errors=errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def tell_loss() -> None:
    """If output has been lost, print a warning that the command continues without output. The warning is printed at
    most once."""
    stream = _output()
    if stream is not None and stream.lost is not None and not stream.reported:
        stream.reported = True
        print(f"warning: {_words(stream.lost)}; the command continues without output", file=sys.stderr)


def exit_code(code: int) -> int:
    """Return the exit code of the process, which is the exit code of its command or, if the command succeeded but
    output has been lost, `FAILURE`. Lost output is reported as an error, unless the reader of a pipe closed it, as
    `head` does."""
    stream = _output()
    if stream is None or stream.lost is None:
        return code
    if not isinstance(stream.lost, BrokenPipeError):
        done = "" if code else "; all other work is done; run the same command again to print it"
        tell_error(f"{_words(stream.lost)}; some output could not be written{done}")
    return code or FAILURE


def in_words(command: Callable[[], object]) -> int:
    """Run a command, print its errors as messages, and return the exit code. Exceptions that may indicate a bug are not
    caught."""
    try:
        Path.cwd()
    except FileNotFoundError:
        tell_error("the working folder has been removed; change to another folder and run the command again")
        return USER_FAULT
    try:
        command()
    except UserFault as fault:
        tell_error(*fault.messages)
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


def _output() -> Stream | None:
    """Flush standard output and return its `Stream`, or None if the caller of main() has replaced it."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, Stream) else None


def _words(error: OSError) -> str:
    return f"standard output: {error.strerror}"


def tell_error(*messages: str) -> None:
    """Print each message with the prefix `error: ` on standard error."""
    for message in messages:
        print(f"error: {message}", file=sys.stderr)
