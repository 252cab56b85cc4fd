"""Functions that hash the documents of a corpus and find duplicate documents, in the first of two passes over the text.

Documents are compared by their digests. Ranges of digests are processed separately to limit memory use.
"""

import hashlib
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from tfscale.data.sources import Part
from tfscale.data.work import Piece
from tfscale.data.workers import count

BUCKETS = 4096
"""Number of buckets into which digests are divided by their first twelve bits. In the file of a `Scan`,
the records of consecutive buckets are contiguous."""
RANGE_DOCUMENTS = 1 << 20
"""Approximate maximum number of documents that are compared at once. Comparing this number of documents needs about
100 MB of memory."""


@dataclass(frozen=True)
class Scan:
    """A file with one record (`Scanned`) per non-empty document in a part of the corpus, in the order of digests."""

    path: Path
    documents: int
    empty: int
    """Number of documents that contain only white space. They are not in the file."""

    def read(self, first: int = 0, stop: int = BUCKETS) -> "Scanned":
        """Return the records of the documents whose digests are in the buckets `first` to `stop - 1`."""
        with safe_open(self.path, "np") as file:
            begin, end = file.get_slice("bounds")[first : stop + 1][[0, -1]].tolist()
            slices = {name: _read_rows(file, name, begin, end) for name in ("digest", "draw", "place", "bytes")}
        return Scanned(**slices)


@dataclass(frozen=True)
class Scanned:
    """Records of n documents, sorted by digest. Records with equal digests are in the order of the documents in the
    corpus."""

    digest: NDArray[np.uint8]
    """SHA-256 of the text of each document, uint8 [n, 32]."""
    draw: NDArray[np.uint64]
    """Random number of each document, [n]. The number decides whether the document is used for validation."""
    place: NDArray[np.uint32]
    """Index of each document among the non-empty documents in its part of the corpus, [n]."""
    bytes: NDArray[np.uint64]
    """Size of the text of each document in UTF-8 bytes, [n]."""


class DocumentTotals(NamedTuple):
    """Numbers and sizes of documents. `duplicates` is the number of documents that repeat an earlier document. The
    other fields are the number and the total size in UTF-8 bytes of the distinct documents in the training split
    (`train`) and in the validation split (`heldout`)."""

    duplicates: int = 0
    train: int = 0
    heldout: int = 0
    train_bytes: int = 0
    heldout_bytes: int = 0


@dataclass(frozen=True)
class Duplicates:
    """A file that identifies the duplicate documents in one range of digests, with totals of all documents in the
    range."""

    path: Path
    totals: DocumentTotals

    def indices(self, part: int) -> NDArray[np.uint32]:
        """Return the indices of the duplicates in one part of the corpus, [duplicates]. A document's index is its
        position among the non-empty documents in the part. `part` is the position of the part in the corpus. Both
        positions are counted from 0."""
        with safe_open(self.path, "np") as file:
            begin, end = file.get_slice("bounds")[part : part + 2].tolist()
            return _read_rows(file, "place", begin, end)


def scan(part: Part, split_seed: int, piece: Piece) -> Scan:
    """Hash the documents in a part of the corpus, write their records to a file, and return the file. A file that an
    earlier attempt to prepare the corpus wrote is used again."""
    path = piece.whole()
    if path is None:
        path = _write_scan(part, split_seed, piece)
    else:
        count(found=part.size)
    with safe_open(path, "np") as file:
        documents = file.get_slice("place").get_shape()[0]
        empty = int(file.metadata()["empty"])
    return Scan(path, documents, empty)


def draw(seed: int, digest: bytes) -> int:
    """Return a pseudo-random number below 2^64 that depends only on the seed of the split and the SHA-256 of a
    document's text. Documents whose number is below the threshold (`limit`) are used for validation."""
    return int.from_bytes(hashlib.sha256(f"{seed}:".encode() + digest).digest()[:8], "big")


def limit(heldout_fraction: float) -> int:
    """Return the threshold below which the random number of a document (`draw`) selects the document for validation.
    About a fraction `heldout_fraction` of all random numbers is below the threshold. The documents that a smaller
    fraction selects are a subset of the documents that a larger fraction selects."""
    return math.ceil(heldout_fraction * 2**64)


def _write_scan(part: Part, split_seed: int, piece: Piece) -> Path:
    digests, draws, sizes = bytearray(), array("Q"), array("Q")
    empty, left = 0, part.size
    for text in part.documents():
        if not text.strip():
            empty += 1
            continue
        encoded = text.encode()
        digest = hashlib.sha256(encoded).digest()
        digests += digest
        draws.append(draw(split_seed, digest))
        sizes.append(len(encoded))
        size = min(len(encoded), left)  # the size of the part is an estimate of the size of its text
        left -= size
        count(1, size)
    count(0, left)
    digest_rows = np.frombuffer(digests, np.uint8).reshape(-1, 32)
    high, low = _sort_keys(digest_rows)
    order = np.lexsort((low, high))
    bounds = np.searchsorted(high[order] >> np.uint64(52), np.arange(BUCKETS + 1, dtype=np.uint64))
    tensors: dict[str, NDArray[Any]] = {
        "digest": digest_rows[order],
        "draw": np.frombuffer(draws, np.uint64)[order],
        "bytes": np.frombuffer(sizes, np.uint64)[order],
        "place": order.astype(np.uint32),
        "bounds": bounds.astype(np.uint32),
    }
    with piece.writing() as writer:
        writer.write(save(tensors, {"empty": str(empty)}))
    return writer.path


def ranges(documents: int) -> list[tuple[int, int]]:
    """Divide the buckets of digests (`BUCKETS`) into ranges that each contain at most about RANGE_DOCUMENTS documents.
    `documents` is the total number of documents. Return a pair (first, stop) for each range, which consists of the
    buckets `first` to `stop - 1`."""
    number = min(BUCKETS, 1 + documents // RANGE_DOCUMENTS)
    return [(n * BUCKETS // number, (n + 1) * BUCKETS // number) for n in range(number)]


def find_duplicates(scans: Sequence[Scan], first: int, stop: int, heldout_limit: int, piece: Piece) -> Duplicates:
    """Find the duplicate documents in the buckets `first` to `stop - 1` of all scans, or read the result of an earlier
    attempt to prepare the corpus. Among equal documents, all except the first one in the corpus are duplicates.

    Args:
        heldout_limit: threshold for the random numbers of validation documents (`limit`).
    """
    path = piece.whole() or _write_duplicates([scan.read(first, stop) for scan in scans], heldout_limit, piece)
    with safe_open(path, "np") as file:
        totals = DocumentTotals(**{name: int(value) for name, value in file.metadata().items()})
    return Duplicates(path, totals)


def _write_duplicates(found: list[Scanned], heldout_limit: int, piece: Piece) -> Path:
    counts = [len(each.place) for each in found]
    digest, draws, place, sizes = (
        np.concatenate([getattr(each, name) for each in found]) for name in ("digest", "draw", "place", "bytes")
    )
    part = np.repeat(np.arange(len(counts), dtype=np.uint32), counts)
    found.clear()
    high, low = _sort_keys(digest)
    order = np.lexsort((low, high))  # stable: equal digests stay in the order of the corpus
    high, low = high[order], low[order]
    again = np.zeros(len(order), bool)
    again[order[1:]] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    heldout = draws < np.uint64(heldout_limit)
    totals = {
        "duplicates": again.sum(),
        "train": (~again & ~heldout).sum(),
        "heldout": (~again & heldout).sum(),
        "train_bytes": sizes[~again & ~heldout].sum(),
        "heldout_bytes": sizes[~again & heldout].sum(),
    }
    count(len(order))
    tensors = {
        "place": place[again],
        "bounds": np.searchsorted(part[again], np.arange(len(counts) + 1)).astype(np.uint64),
    }
    with piece.writing() as writer:
        writer.write(save(tensors, {name: str(int(value)) for name, value in totals.items()}))
    return writer.path


def _sort_keys(digests: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the first 16 bytes of each of the digests [n, 32] as two arrays [n] of unsigned 64-bit integers, with the
    first 8 bytes in the first array. Digests are sorted by these pairs of integers, and documents with equal pairs are
    considered equal."""
    words = np.ascontiguousarray(digests[:, :16]).view(">u8").astype(np.uint64)
    return words[:, 0], words[:, 1]


def _read_rows(file: Any, name: str, begin: int, end: int) -> NDArray[Any]:
    """Return rows `begin` to `end - 1` of a tensor in an open safetensors file. The range may be empty."""
    rows: NDArray[Any] = file.get_slice(name)[begin:end] if begin < end else file.get_tensor(name)[:0]
    return rows
