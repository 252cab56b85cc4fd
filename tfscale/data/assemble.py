"""Functions that write the tokens of a corpus to shards. The validation documents are written in random order."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.data.encode import COLUMNS, Encoded
from tfscale.data.manifest import ShardRecord, SplitRecord
from tfscale.data.shards import ShardLabel, TokenArray, header_of
from tfscale.data.work import Piece, Pieces
from tfscale.data.workers import count
from tfscale.files import sha256_of

SHARD_TOKENS = 1 << 26
"""Number of tokens in a full shard, which takes 128 MiB at two bytes per token."""
READ_TOKENS = 1 << 20


@dataclass(frozen=True)
class ShardTask:
    """A task that writes one shard, which contains the tokens `start` to `stop - 1` of the concatenated `files`."""

    name: str
    piece: Piece
    label: ShardLabel
    dtype: np.dtype[Any]
    files: Sequence[tuple[Path, int]]
    """Pairs (path, number of tokens) of files that contain only tokens, without a header."""
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Size of the tokens of the shard in bytes."""
        return (self.stop - self.start) * self.dtype.itemsize

    def tokens(self) -> Iterator[TokenArray]:
        """Yield the tokens of the shard in arrays of at most READ_TOKENS tokens."""
        begin = 0
        for file, held in self.files:
            first, stop = max(self.start - begin, 0), min(self.stop - begin, held)
            for position in range(first, stop, READ_TOKENS):
                wanted = min(READ_TOKENS, stop - position)
                read = np.fromfile(file, self.dtype, wanted, offset=position * self.dtype.itemsize)
                assert len(read) == wanted, f"{file} became shorter while it was being read"
                yield read
            begin += held


def divide_shards(
    pieces: Pieces, label: ShardLabel, dtype: np.dtype[Any], files: Sequence[tuple[Path, int]]
) -> list[ShardTask]:
    """Return the tasks that write the tokens of one split to shards named `<split>-00000.safetensors` and so on. All
    shards except the last contain SHARD_TOKENS tokens. `files` are pairs (path, number of tokens) of files that contain
    only tokens, without a header."""
    total = sum(held for _, held in files)
    starts = range(0, total, SHARD_TOKENS)
    names = [f"{label.split}-{number:05d}.safetensors" for number in range(len(starts))]
    return [
        ShardTask(name, pieces[name], label, dtype, files, start, min(start + SHARD_TOKENS, total))
        for name, start in zip(names, starts, strict=True)
    ]


def write_shard(task: ShardTask) -> tuple[Path, ShardRecord]:
    """Write a shard, unless an earlier attempt to prepare the corpus wrote it. Return the path of the shard and the
    record of the shard for the manifest."""
    path = task.piece.whole()
    if path is None:
        with task.piece.writing() as shard:
            shard.write(header_of(task.label, task.dtype, task.stop - task.start))
            for tokens in task.tokens():
                shard.write(tokens.data)
                count(tokens=len(tokens), size=tokens.nbytes)
        path, digest = shard.path, shard.digest.hexdigest()
    else:
        digest = sha256_of(path)
        count(found=task.size)
    return path, ShardRecord(task.name, task.stop - task.start, path.stat().st_size, digest)


def write_heldout(parts: Sequence[Encoded], path: Path) -> SplitRecord:
    """Write the validation tokens of all parts of the corpus to one file, and return the record of the validation
    split, which lists no shards yet. The documents are sorted by their random numbers (`Document.lot`), so that any
    prefix of the file is a random sample of the validation documents. This function needs about 50 bytes of memory per
    validation document, and memory for the validation tokens of one part."""
    lots, lengths, sizes = (np.concatenate([each.read_column(name) for each in parts]) for name in COLUMNS)
    totals = SplitRecord(len(lots), int(lengths.sum()), int(sizes.sum()), ())
    del sizes
    order = np.argsort(lots, kind="stable")  # stable: documents with equal numbers stay in the order of the corpus
    starts = np.empty(len(lots), np.uint64)
    starts[order] = np.cumsum(lengths[order]) - lengths[order]
    first = 0
    with path.open("wb") as file:
        for part in parts:
            tokens = part.read_column("tokens")
            stops = np.cumsum(part.read_column("length")).tolist()
            for begin, stop, start in zip([0, *stops], stops, starts[first:].tolist(), strict=False):
                os.pwrite(file.fileno(), tokens[begin:stop].tobytes(), start * tokens.itemsize)
            first += len(stops)
    return totals
