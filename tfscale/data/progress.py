"""Progress reports of the preparation of a corpus."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """Progress of one phase of a preparation."""

    phase: str
    done: int = 0
    """Number of bytes that have been processed in this phase."""
    total: int = 0
    """Approximate number of bytes in the whole phase, or 0 if unknown."""
    found: int = 0
    """Number of the bytes in `done` that an earlier attempt had processed, which do not count towards the speed."""
    documents: int = 0
    """Number of documents that this attempt has processed."""
    tokens: int = 0
    """Number of tokens that this attempt has written."""


Progress = Callable[[Report], None]
"""Type of a callback that receives a report at the start and end of a phase, and a few times per second in between."""


def silent(report: Report) -> None:
    """Ignore a progress report. This function is the default callback."""
