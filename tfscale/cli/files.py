"""Tables of the files that a corpus is read from, and of skipped files."""

from collections import defaultdict
from pathlib import PurePath
from typing import Any

from tfscale.cli.table import FittedTable
from tfscale.data.compression import COMPRESSED
from tfscale.data.listing import LeftOut, Listing, TextFile

SHOWN_NAMES = 5
"""Maximum number of file names shown per reason for skipping files."""
SHOWN_REASONS = 20


def read_table(listing: Listing, documents: int) -> FittedTable:
    """Return a table with the number of files that are read, by file type."""
    kinds: dict[str, list[TextFile]] = defaultdict(list)
    for file in listing.files:
        kinds[_kind(file)].append(file)
    total = f"{documents:,}"
    rows = FittedTable("files read", ["type"], ["files", "bytes", "documents"], spare=[])
    for kind, files in sorted(kinds.items()):
        rows.add_row(kind, f"{len(files):,}", _bytes(files), total if len(kinds) == 1 else "")
    if len(kinds) > 1:
        rows.add_row("all", f"{len(listing.files):,}", _bytes(listing.files), total)
    return rows


def left_out_table(listing: Listing) -> FittedTable:
    """Return a table of skipped files by reason, with at most `SHOWN_NAMES` names per reason."""
    reasons: dict[str, list[LeftOut]] = defaultdict(list)
    for each in listing.left_out:
        reasons[each.reason].append(each)
    rows = FittedTable(f"skipped files: {len(listing.left_out):,}", ["name", "reason"], ["bytes"], spare=["bytes"])
    for reason, found in list(reasons.items())[:SHOWN_REASONS]:
        for each in found[:SHOWN_NAMES]:
            rows.add_row(printable(each.name), reason, "" if each.bytes is None else f"{each.bytes:,}")
        if more := found[SHOWN_NAMES:]:
            rows.add_row(f"and {len(more):,} more (listed by --json)", reason, _bytes(more))
    if rest := [each for found in list(reasons.values())[SHOWN_REASONS:] for each in found]:
        rows.add_row(f"and {len(rest):,} more (listed by --json)", "other reasons", _bytes(rest))
    return rows


def listing_document(listing: Listing) -> dict[str, Any]:
    """Return the names and sizes in bytes of all files that are read, and of all skipped files with the reasons, for
    --json."""
    return {
        "read": [{"name": printable(file.name), "bytes": file.bytes} for file in listing.files],
        "left_out": [
            {"name": printable(each.name), "reason": each.reason, "bytes": each.bytes} for each in listing.left_out
        ],
    }


def printable(name: str) -> str:
    """Return a name with unprintable parts escaped: control characters, and bytes that are not UTF-8."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in name)


def _kind(file: TextFile) -> str:
    extensions = PurePath(file.name.lower()).suffixes
    kind = "".join(extensions[-2:] if extensions[-1] in COMPRESSED else extensions[-1:])
    return kind if file.bytes else f"{kind}, empty"


def _bytes(files: list[LeftOut] | tuple[TextFile, ...] | list[TextFile]) -> str:
    return f"{sum(file.bytes or 0 for file in files):,}"
