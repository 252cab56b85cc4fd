"""Detection of duplicate documents by their digests. Ranges of digests are processed separately to limit memory use."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from tfscale.data.scan import BUCKETS, Scan, Scanned, sort_keys
from tfscale.data.work import Piece, read_rows
from tfscale.data.workers import count

RANGE_DOCUMENTS = 1 << 20
"""Approximate maximum number of documents that are compared at once. The comparison needs about 100 MB of memory."""


class DocumentTotals(NamedTuple):
    """Number of duplicate documents, and the numbers and total sizes in UTF-8 bytes of the distinct documents of both
    splits."""

    duplicates: int = 0
    train: int = 0
    heldout: int = 0
    train_bytes: int = 0
    heldout_bytes: int = 0


@dataclass(frozen=True)
class Duplicates:
    """Duplicate documents in one range of digests."""

    path: Path
    totals: DocumentTotals

    def places(self, part: int) -> NDArray[np.uint32]:
        """Return the index of each duplicate among the non-empty documents of part number `part` of the corpus, counted
        from 0. Only duplicates in this range of digests are included."""
        with safe_open(self.path, "np") as file:
            begin, end = file.get_slice("bounds")[part : part + 2].tolist()
            return read_rows(file, "place", begin, end)


def ranges(documents: int) -> list[tuple[int, int]]:
    """Divide the buckets of digests (`scan.BUCKETS`) into ranges (first, stop) of at most about RANGE_DOCUMENTS
    documents each. The bucket `stop` is not in the range."""
    number = min(BUCKETS, 1 + documents // RANGE_DOCUMENTS)
    return [(n * BUCKETS // number, (n + 1) * BUCKETS // number) for n in range(number)]


def find_duplicates(scans: Sequence[Scan], first: int, stop: int, heldout_limit: int, piece: Piece) -> Duplicates:
    """Find the duplicate documents in the buckets `first` to `stop - 1` of all scans, or read the result that an
    earlier attempt stored. Among equal documents, the first document in the order of the corpus is not a duplicate."""
    path = piece.whole() or _write([scan.read(first, stop) for scan in scans], heldout_limit, piece)
    with safe_open(path, "np") as file:
        totals = DocumentTotals(**{name: int(value) for name, value in file.metadata().items()})
    return Duplicates(path, totals)


def _write(found: list[Scanned], heldout_limit: int, piece: Piece) -> Path:
    counts = [len(each.place) for each in found]
    digest, draws, place, sizes = (
        np.concatenate([getattr(each, name) for each in found]) for name in ("digest", "draw", "place", "bytes")
    )
    part = np.repeat(np.arange(len(counts), dtype=np.uint32), counts)
    found.clear()
    high, low = sort_keys(digest)
    order = np.lexsort((low, high))  # stable: equal digests stay in the order of the corpus
    again = np.zeros(len(order), bool)
    if len(order):
        high, low = high[order], low[order]
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
