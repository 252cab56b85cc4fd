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
    """Number of bytes in `done` that an earlier attempt had processed. These bytes are excluded from the speed."""
    documents: int = 0
    """Number of documents that this attempt has processed in this phase."""
    tokens: int = 0
    """Number of tokens that this attempt has written in this phase."""


Progress = Callable[[Report], None]
"""Type of a callback that receives progress reports. A phase that processes parts of the corpus sends a report at its
start and end, and a few times per second in between. Other phases, such as the training of a tokenizer, may send only
one report."""


def silent(report: Report) -> None:
    """Ignore a progress report. This function is the default callback."""
