"""Functions that tokenize the distinct documents of a corpus in the second of two passes over the text."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from tfscale.data.duplicates import Duplicates, Scan
from tfscale.data.errors import DataError
from tfscale.data.shards import token_dtype
from tfscale.data.sources import Part
from tfscale.data.tokenizer import Tokenizer, load_tokenizer, pieces
from tfscale.data.work import Piece
from tfscale.data.workers import count

BATCH_CHARACTERS = 1 << 18
"""Minimum number of characters that are tokenized at once, except in the last batch of a part. Tokenizers need about
200 bytes of memory per character."""
COLUMNS = ("lot", "length", "bytes")
"""Names of the columns that are stored for the validation documents: the random number by which the documents are
sorted, the number of tokens including the end-of-text token, and the number of UTF-8 bytes."""


@dataclass(frozen=True)
class Distinct:
    """A part of a corpus without the documents that repeat an earlier document."""

    part: Part
    number: int
    """Index of the part in the corpus."""
    scan: Scan
    duplicates: Sequence[Duplicates]
    heldout_limit: int

    def documents(self) -> Iterator["Document"]:
        """Yield the distinct non-empty documents in their order in the part.

        Raises:
            DataError: the text has changed since it was scanned.
        """
        digests, draws, dropped = self._in_order()
        texts = (text for text in self.part.documents() if text.strip())
        for text, row, draw, repeats in zip_longest(texts, digests, draws, dropped):
            encoded, digest = (text or "").encode(), b"" if row is None else row.tobytes()
            if hashlib.sha256(encoded).digest() != digest:
                raise DataError("The text changed while it was being read. Prepare the corpus again.")
            if not repeats:
                lot = int(draw)
                yield Document(text, len(encoded), lot if lot < self.heldout_limit else None, digest)

    def _in_order(self) -> tuple[NDArray[np.uint8], NDArray[np.uint64], NDArray[np.bool_]]:
        """Return the digests [n, 32] and random numbers [n] of the n non-empty documents in their order in the part,
        and an array [n] that is True for duplicates."""
        scanned = self.scan.read()
        digests, draws = np.empty_like(scanned.digest), np.empty_like(scanned.draw)
        digests[scanned.place], draws[scanned.place] = scanned.digest, scanned.draw
        dropped = np.zeros(len(draws), bool)
        for each in self.duplicates:
            dropped[each.indices(self.number)] = True
        return digests, draws, dropped

    def digests(self) -> bytes:
        """Return the concatenated SHA-256 digests of the distinct documents, 32 bytes each, in their order in the
        part."""
        digests, _, dropped = self._in_order()
        return digests[~dropped].tobytes()


@dataclass(frozen=True)
class Document:
    """A non-empty document that does not repeat an earlier document of the corpus."""

    text: str
    utf8_bytes: int
    lot: int | None
    """Random number by which validation documents are sorted, or None for a training document."""
    digest: bytes


@dataclass(frozen=True)
class Encoded:
    """The tokens of a part of a corpus, which are stored in one file for training and one file for validation."""

    train: Path
    """File that contains only the concatenated tokens of the training documents, without a header."""
    train_tokens: int
    train_documents: int
    train_bytes: int
    """Size of the training text in UTF-8 bytes."""
    unknown: int
    """Number of unknown tokens in the training and validation documents (`Tokenizer.count_unknown`)."""
    heldout: Path
    """Safetensors file with the COLUMNS and the `tokens` of the validation documents."""

    def read_column(self, name: str) -> NDArray[Any]:
        """Return a column of the validation documents. Each of the COLUMNS has one value per document, [documents]. The
        column `tokens` contains the concatenated tokens of all documents, [tokens]."""
        with safe_open(self.heldout, "np") as file:
            column: NDArray[Any] = file.get_tensor(name)
        return column


def encode(distinct: Distinct, tokenizer: Path, train: Piece, heldout: Piece) -> Encoded:
    """Tokenize the distinct documents in a part of the corpus, and store the training tokens and the validation tokens
    in two files. If an earlier attempt to prepare the corpus wrote both files, they are used again. An end-of-text
    token is added after each document."""
    tokens, held = train.whole(), heldout.whole()
    if tokens is None or held is None:
        return _encoded(*_write(distinct, _load_once(tokenizer), train, heldout))
    found = _encoded(tokens, held)
    count(found=found.train_bytes + int(found.read_column("bytes").sum()))
    return found


def _encoded(train: Path, heldout: Path) -> Encoded:
    with safe_open(heldout, "np") as file:
        totals = {name: int(value) for name, value in file.metadata().items()}
    return Encoded(train, heldout=heldout, **totals)


_load_once = lru_cache(maxsize=1)(load_tokenizer)


def _write(distinct: Distinct, tokenizer: Tokenizer, train_piece: Piece, heldout_piece: Piece) -> tuple[Path, Path]:
    held, end = _HeldoutWriter(token_dtype(tokenizer.vocab_size)), [tokenizer.end_of_text_id]
    totals = Counter(train_tokens=0, train_documents=0, train_bytes=0, unknown=0)
    with train_piece.writing() as train:
        for batch in _batches(distinct.documents()):
            texts = [piece.text for piece in batch]
            encoded = tokenizer.encode_batch(texts)
            rows = [(piece, ids + end if piece.ends else ids) for piece, ids in zip(batch, encoded, strict=True)]
            tokens = np.fromiter(chain.from_iterable(ids for piece, ids in rows if piece.of.lot is None), held.dtype)
            train.write(tokens.data)
            for piece, ids in rows:
                if piece.of.lot is not None:
                    held.add(piece, ids)
            ended = [piece.of for piece in batch if piece.ends]
            trained = [document.utf8_bytes for document in ended if document.lot is None]
            unknown = tokenizer.count_unknown(texts, encoded)
            totals.update(
                train_tokens=len(tokens), train_documents=len(trained), train_bytes=sum(trained), unknown=unknown
            )
            count(len(ended), sum(document.utf8_bytes for document in ended), sum(len(ids) for _, ids in rows))
    with heldout_piece.writing() as heldout:
        heldout.write(held.content({name: str(value) for name, value in totals.items()}))
    return train.path, heldout.path


class _HeldoutWriter:
    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._tokens = bytearray()
        self._length = 0
        self._lots, self._lengths, self._bytes = array("Q"), array("Q"), array("Q")

    def add(self, piece: "TextPiece", ids: list[int]) -> None:
        self._tokens += np.array(ids, self.dtype).tobytes()
        self._length += len(ids)
        if piece.ends:
            assert piece.of.lot is not None
            self._lots.append(piece.of.lot)
            self._lengths.append(self._length)
            self._bytes.append(piece.of.utf8_bytes)
            self._length = 0

    def content(self, metadata: dict[str, str]) -> bytes:
        columns = zip(COLUMNS, (self._lots, self._lengths, self._bytes), strict=True)
        tensors: dict[str, Any] = {name: np.frombuffer(values, np.uint64) for name, values in columns}
        content: bytes = save({**tensors, "tokens": np.frombuffer(self._tokens, self.dtype)}, metadata)
        return content


@dataclass(frozen=True)
class TextPiece:
    """A document, or one of the pieces into which a long document is cut before it is tokenized."""

    text: str
    ends: bool
    """True for the last piece of a document."""
    of: Document


def _batches(documents: Iterator[Document]) -> Iterator[list[TextPiece]]:
    batch: list[TextPiece] = []
    characters = 0
    for document in documents:
        texts = list(pieces(document.text))
        for number, text in enumerate(texts, start=1):
            batch.append(TextPiece(text, number == len(texts), document))
            characters += len(text)
            if characters >= BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch
