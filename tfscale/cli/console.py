"""Console output as text and tables for people and as JSON for programs."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

from rich.console import Console

LOG_WIDTH = 1000
"""Width without a terminal, large enough that nothing is wrapped or left out in a log file."""
PROSE_WIDTH = 120
"""Largest width of running text."""

console = Console(highlight=False)
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = LOG_WIDTH


def leave_stdout(alone: bool) -> None:
    """Send output for people to standard error from now on, or to standard output again."""
    console.stderr = alone
    if "COLUMNS" not in os.environ:
        # None: the current width of the terminal.
        console.width = None if console.is_terminal else LOG_WIDTH  # type: ignore[assignment]


def prose_width() -> int:
    """Return the width to wrap running text at."""
    return min(console.width, PROSE_WIDTH)


def say(text: str) -> None:
    """Print a line unchanged; only the terminal wraps it."""
    console.print(text, markup=False, soft_wrap=True)


def answer(document: object) -> None:
    """Print the JSON document of --json on standard output, with null for non-finite numbers."""
    print(json.dumps(_plain(document), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    """Return a value in a form that JSON can represent."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
