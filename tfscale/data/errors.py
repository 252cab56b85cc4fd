"""Errors in preparing and reading corpora."""

from tfscale.faults import InvalidInput


class DataError(InvalidInput):
    """A corpus, tokenizer or shard cannot be used. The message says how to fix it."""


class Unfinished(DataError):
    """A preparation was interrupted. When it is run again, it continues from there."""
