"""Reading and tokenization of the texts on which a model is evaluated."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfscale.data.errors import DataError
from tfscale.data.listing import left_out_words
from tfscale.data.text import TextSource
from tfscale.data.tokenizer import FIX, Tokenizer, pieces, unknown_words
from tfscale.faults import UserFault


@dataclass(frozen=True)
class EncodedText:
    """Tokens of a text file or of a folder of text files. The path is read in the same way as `data.path`."""

    path: Path
    sha256: str
    """SHA-256 of the names and contents of the files."""
    tokens: NDArray[np.uint32]
    """Tokens of the documents in sequence, with an end-of-text token after each document and one before the first."""
    bytes: int
    """Number of UTF-8 bytes of the text. The end of a document counts as one byte."""
    unknown: int
    """Number of tokens for which the tokenizer has no entry."""
    left_out: str
    """Summary of the skipped files of the folder, or an empty string."""

    @property
    def notes(self) -> Iterator[str]:
        """Notes for the user on skipped files and on unknown tokens."""
        if self.left_out:
            yield f"--text {self.path}: {self.left_out}"
        if self.unknown:
            yield f"--text {self.path}: {unknown_words(self.unknown, len(self.tokens) - 1)}"


def encode_text(path: Path, tokenizer: Tokenizer, max_unknown: float) -> EncodedText:
    """Read a text file or a folder of text files, and convert the text to tokens.

    Args:
        max_unknown: maximum fraction of tokens for which the tokenizer has no entry.

    Raises:
        UserFault: there is no text, the text is faulty, or the fraction of unknown tokens exceeds `max_unknown`.
    """
    source = TextSource(path)
    try:
        if faults := source.missing():
            raise UserFault([f"--text {fault}" for fault in faults])
        text = _encode(source, tokenizer)
    except DataError as error:
        raise UserFault(f"--text {fault}" for fault in error.faults) from error
    tokens = len(text.tokens) - 1
    if text.unknown > max_unknown * tokens:
        words = unknown_words(text.unknown, tokens)
        raise UserFault([f"--text {path}: data.max_unknown={max_unknown}: {words}. {FIX}"])
    return text


def _encode(source: TextSource, tokenizer: Tokenizer) -> EncodedText:
    rows, size, unknown, empty = [[tokenizer.end_of_text_id]], 0, 0, True
    for document in chain.from_iterable(part.documents() for part in source.parts()):
        texts = list(pieces(document))
        encoded = tokenizer.encode_batch(texts)
        unknown += tokenizer.count_unknown(texts, encoded)
        rows += [*encoded, [tokenizer.end_of_text_id]]
        size += len(document.encode()) + 1
        empty = empty and not document.strip()
    if empty:
        raise DataError(f"{source.path}: contains no text. Choose a text that is not empty.")
    tokens = np.fromiter(chain.from_iterable(rows), np.uint32)
    words = left_out_words(source.listing())
    return EncodedText(source.path, source.identity()["sha256"], tokens, size, unknown, words)
