"""Errors that are raised when corpora are prepared or read."""

from tfscale.faults import InvalidInput


class DataError(InvalidInput):
    """Error raised for a corpus, tokenizer or shard that cannot be used. The message suggests a fix."""


class Unfinished(DataError):
    """Error raised when a preparation or download fails. Running the same command again resumes the preparation or
    download."""
