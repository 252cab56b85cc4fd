"""The one error of this room."""


class DataError(ValueError):
    """A corpus, tokenizer or shard that is not as it should be. The message says what to do."""
