"""Errors in preparing and reading corpora."""

from tfscale.faults import InvalidInput


class DataError(InvalidInput):
    """A corpus, tokenizer or shard cannot be used. The message says how to fix it."""


class Unfinished(DataError):
    """The preparation of a corpus was interrupted. It resumes from there when it is run again."""
