"""Functions that hash the documents of a corpus in the first of two passes over the text."""

import hashlib
import math
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from tfscale.data.sources import Part
from tfscale.data.work import Piece, read_rows
from tfscale.data.workers import count

BUCKETS = 4096
"""Number of buckets into which digests are divided by their first twelve bits. The records of consecutive buckets are
one contiguous slice of a scan."""


@dataclass(frozen=True)
class Scan:
    """A file with the sorted digests of the non-empty documents of a part."""

    path: Path
    documents: int
    empty: int

    def read(self, first: int = 0, stop: int = BUCKETS) -> "Scanned":
        """Return the records of the documents whose digests are in the buckets `first` to `stop - 1`."""
        with safe_open(self.path, "np") as file:
            begin, end = file.get_slice("bounds")[first : stop + 1][[0, -1]].tolist()
            slices = {name: read_rows(file, name, begin, end) for name in ("digest", "draw", "place", "bytes")}
        return Scanned(**slices)


@dataclass(frozen=True)
class Scanned:
    """Records of n documents, sorted by digest. Records with equal digests are in the order of the documents in the
    part."""

    digest: NDArray[np.uint8]
    """SHA-256 of the text of each document: [n, 32]."""
    draw: NDArray[np.uint64]
    """Random number of each document, which decides whether the document is used for validation: [n]."""
    place: NDArray[np.uint32]
    """Index of each document among the non-empty documents of the part: [n]."""
    bytes: NDArray[np.uint64]
    """Size of the text of each document in UTF-8 bytes: [n]."""


def scan(part: Part, split_seed: int, piece: Piece) -> Scan:
    """Hash the documents of a part, unless an earlier attempt stored the scan of the part, and return the scan."""
    path = piece.whole()
    if path is None:
        path = _write(part, split_seed, piece)
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
    """Return the threshold for the random numbers of documents (`draw`). About a fraction `heldout_fraction` of all
    random numbers is below the threshold. The documents that a smaller fraction selects are a subset of the documents
    that a larger fraction selects."""
    return math.ceil(heldout_fraction * 2**64)


def _write(part: Part, split_seed: int, piece: Piece) -> Path:
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
    order = np.lexsort(sort_keys(digest_rows)[::-1])
    digest_rows = digest_rows[order]
    first = sort_keys(digest_rows)[0]
    bounds = np.searchsorted(first >> np.uint64(52), np.arange(BUCKETS + 1, dtype=np.uint64))
    tensors: dict[str, NDArray[Any]] = {
        "digest": digest_rows,
        "draw": np.frombuffer(draws, np.uint64)[order],
        "bytes": np.frombuffer(sizes, np.uint64)[order],
        "place": order.astype(np.uint32),
        "bounds": bounds.astype(np.uint32),
    }
    with piece.writing() as writer:
        writer.write(save(tensors, {"empty": str(empty)}))
    return writer.path


def sort_keys(digests: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the first 16 bytes of each of the digests [n, 32] as two arrays [n] of unsigned 64-bit integers, with the
    more significant integers in the first array. Digests are sorted by these pairs of integers, and documents with
    equal pairs are considered equal."""
    words = np.ascontiguousarray(digests[:, :16]).view(">u8").astype(np.uint64)
    return words[:, 0], words[:, 1]
