"""First reading of a corpus: what each document hashes to."""

import hashlib
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from tfscale.data.sources import Part
from tfscale.data.split import draw
from tfscale.data.work import Piece, read_rows
from tfscale.data.workers import count

BUCKETS = 4096
"""Into which the digests are sorted by their first twelve bits, so that a range of them is a slice of each scan."""
COUNTED_BYTES = 1 << 20


@dataclass(frozen=True)
class ScanTask:
    """A part to be scanned."""

    part: Part
    split_seed: int
    piece: Piece


@dataclass(frozen=True)
class Scan:
    """A part's documents that are not empty, in the order of their digests."""

    path: Path
    documents: int
    empty: int

    def read(self) -> "Scanned":
        """All of it."""
        with safe_open(self.path, "np") as file:
            tensors = {name: file.get_tensor(name) for name in ("digest", "draw", "place")}
        return Scanned(**tensors)

    def read_range(self, first: int, stop: int) -> "Scanned":
        """What has its digests in the buckets first to stop - 1."""
        with safe_open(self.path, "np") as file:
            begin, end = file.get_slice("bounds")[first : stop + 1][[0, -1]].tolist()
            slices = {name: read_rows(file, name, begin, end) for name in ("digest", "draw", "place", "bytes")}
        return Scanned(**slices)


@dataclass(frozen=True)
class Scanned:
    """Documents in the order of their digests; the same digests in the order of their places."""

    digest: NDArray[np.uint8]
    """[n, 32]: SHA-256 of the text."""
    draw: NDArray[np.uint64]
    """[n]: by which it is held out, or not."""
    place: NDArray[np.uint32]
    """[n]: its number in the part, empty documents not counted."""
    bytes: NDArray[np.uint64] | None = None
    """[n]: of the text."""


def scan(task: ScanTask) -> Scan:
    """Reads a part, unless its scan is there already."""
    path = task.piece.whole()
    if path is None:
        path = _write(task)
    else:
        count(found=task.part.size)
    with safe_open(path, "np") as file:
        documents = file.get_slice("place").get_shape()[0]
        empty = int(file.metadata()["empty"])
    return Scan(path, documents, empty)


def _write(task: ScanTask) -> Path:
    digests, draws, sizes = bytearray(), array("Q"), array("Q")
    empty = 0
    progress = _PartProgress(task.part.size)
    for text in task.part.documents():
        if not text.strip():
            empty += 1
            continue
        encoded = text.encode()
        digest = hashlib.sha256(encoded).digest()
        digests += digest
        draws.append(draw(task.split_seed, digest))
        sizes.append(len(encoded))
        progress.add(len(encoded))
    progress.end()
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
    with task.piece.writing() as piece:
        piece.write(save(tensors, {"empty": str(empty)}))
    return piece.path


class _PartProgress:
    """Counts a part's text as bytes of its files: about, until its end."""

    def __init__(self, size: int) -> None:
        self._left, self._documents, self._bytes = size, 0, 0

    def add(self, size: int) -> None:
        self._documents += 1
        self._bytes += size
        if self._bytes > COUNTED_BYTES:
            self._tell(min(self._bytes, self._left))

    def end(self) -> None:
        self._tell(self._left)

    def _tell(self, size: int) -> None:
        count(self._documents, size)
        self._left -= size
        self._documents = self._bytes = 0


def sort_keys(digests: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The first 16 bytes of each digest, by which documents are told apart, as two numbers that sort as they do."""
    words = np.ascontiguousarray(digests[:, :16]).view(">u8").astype(np.uint64)
    return words[:, 0], words[:, 1]
