"""The progress of a preparation."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """The progress of one phase."""

    phase: str
    done: int = 0
    """Bytes that have been processed."""
    total: int = 0
    """Bytes of the whole phase, about. 0 if that is not known."""
    found: int = 0
    """Bytes out of `done` that an earlier attempt had processed. They say nothing about speed."""
    documents: int = 0
    """Documents that this attempt has processed."""
    tokens: int = 0
    """Tokens that this attempt has written."""


Progress = Callable[[Report], None]
"""A callback for reports, called when a phase begins or ends and a few times per second at most in between."""


def silent(report: Report) -> None:
    """Ignore the report."""
