"""What every check stands on: findings, and files read without trust."""

import hashlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

from tfscale.checkpoint import BrokenCheckpoint

T = TypeVar("T")
Check = Generator[str, None, T]
"""Yields findings, sentences that name a file, what is there and what should be; returns what later checks need."""

DAMAGE = (
    BrokenCheckpoint, ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError,
)  # fmt: skip
"""What a file that is not what was written may do to its reader."""


def guarded(path: Path, check: Check[T]) -> Check[T | None]:
    """The check, ended by a finding where a damaged file makes it stumble."""
    try:
        return (yield from check)
    except DAMAGE as error:
        yield damaged(path, error)
        return None


def damaged(path: Path, error: Exception) -> str:
    """An error of reading as a finding that names the path."""
    message = str(error)
    return message if str(path) in message else f"{path}: damaged ({type(error).__name__}: {message})"


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: the file is missing or holds something else; the message names it.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file}: not a JSON object")
    return values


def read_lines(file: Path) -> list[str]:
    """The lines of a text, whatever bytes it holds; none where there is no file."""
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
