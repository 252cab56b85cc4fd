"""Errors that are raised when corpora are prepared or read."""

from tfscale.faults import InvalidInput


class DataError(InvalidInput):
    """Error raised for a corpus, tokenizer or shard that cannot be used. The message explains how to fix the
    problem."""


class Unfinished(DataError):
    """Error raised when the preparation of a corpus is interrupted or a download fails. Running the preparation again
    resumes it."""
