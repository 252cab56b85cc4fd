"""Errors of corpora."""

from tfscale.faults import InvalidInput


class DataError(InvalidInput):
    """A corpus, tokenizer or shard that is not as it should be. The message says what to do."""


class Unfinished(DataError):
    """A preparation that could not go on, and will from where it was."""
