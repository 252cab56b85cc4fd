"""Console output as text, tables and JSON."""

import json
import os

from rich.console import Console

LOG_WIDTH = 1000
"""Output width without a terminal, so large that log files contain no wrapped lines and all columns of tables."""
PROSE_WIDTH = 120
"""Maximum width of running text in characters."""

console = Console(highlight=False)
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = LOG_WIDTH


def leave_stdout(alone: bool) -> None:
    """Send text and tables to standard error if `alone` is true, or to standard output otherwise."""
    console.stderr = alone
    if "COLUMNS" not in os.environ:
        # None: the current width of the terminal.
        console.width = None if console.is_terminal else LOG_WIDTH  # type: ignore[assignment]


def prose_width() -> int:
    """Return the width in characters at which running text is wrapped."""
    return min(console.width, PROSE_WIDTH)


def say(*lines: str, prefix: str = "") -> None:
    """Print each line after the prefix, without markup and without wrapping."""
    for line in lines:
        console.print(prefix + line, markup=False, soft_wrap=True)


def answer(document: object) -> None:
    """Print a document as JSON on standard output, for the option --json."""
    print(as_json(document))


def as_json(document: object) -> str:
    """Return a document as indented JSON, with null for non-finite numbers."""
    from pydantic_core import to_jsonable_python

    return json.dumps(to_jsonable_python(document, inf_nan_mode="null"), indent=2, allow_nan=False)
