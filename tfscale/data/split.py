"""Training and held-out documents: disjoint, and the same ones in whatever order the documents come."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tfscale.data.errors import DataError
from tfscale.data.spool import Spool

Progress = Callable[[str, int], None]
"""Called now and then with what is being done and how many documents are done."""

REPORT_DOCUMENTS = 1000


@dataclass(frozen=True)
class SplitResult:
    """What the split found, beside the documents themselves."""

    heldout_places: list[int]
    """In the held-out spool, in the order of the documents' hashes."""
    content_sha256: str
    """Over the sha256 of every distinct document, in the order in which they came."""
    empty: int
    duplicates: int


def split_documents(
    documents: Iterable[str], heldout_fraction: float, seed: int, train: Spool, heldout: Spool, progress: Progress
) -> SplitResult:
    """Puts each distinct document into one of the spools, by a hash of the seed and its text.

    Held-out documents are ordered by that hash, so that the first of them are a fair sample of all, and the same ones
    when the fraction rises.

    Raises:
        DataError: one of the splits stays empty.
    """
    seen: set[bytes] = set()
    content = hashlib.sha256()
    places: list[tuple[int, int]] = []
    empty = duplicates = 0
    for number, text in enumerate(documents, start=1):
        if number % REPORT_DOCUMENTS == 0:
            progress("reading documents", number)
        if not text.strip():
            empty += 1
            continue
        encoded = text.encode()
        digest = hashlib.sha256(encoded).digest()
        if digest[:16] in seen:
            duplicates += 1
            continue
        seen.add(digest[:16])
        content.update(digest)
        lot = int.from_bytes(hashlib.sha256(f"{seed}:".encode() + digest).digest()[:8], "big")
        if lot < heldout_fraction * 2**64:
            places.append((lot, heldout.append(encoded)))
        else:
            train.append(encoded)
    if not train.documents or not heldout.documents:
        raise DataError(
            f"heldout_fraction={heldout_fraction}: of {len(seen):,} distinct documents {train.documents:,} are for "
            f"training and {heldout.documents:,} held out (left out: {empty:,} empty, {duplicates:,} duplicates). "
            "Both need one at least: give more documents (a .txt file is one, a line of .jsonl is one), or another "
            "heldout_fraction or split_seed."
        )
    return SplitResult([place for _, place in sorted(places)], content.hexdigest(), empty, duplicates)
