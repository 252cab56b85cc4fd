"""How far a preparation is."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """One look at a phase."""

    phase: str
    done: int = 0
    """Bytes."""
    total: int = 0
    """Of the whole phase, about. 0: not known."""
    found: int = 0
    """Of those that are done: what an earlier attempt had done, which says nothing about speed."""
    documents: int = 0
    """Of this attempt."""
    tokens: int = 0
    """Of this attempt."""


Progress = Callable[[Report], None]
"""Called several times a second at most, and at the beginning and end of each phase."""


def silent(report: Report) -> None:
    """Tells nobody."""
