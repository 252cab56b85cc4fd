"""Functions and classes for token shards. A shard is a safetensors file with one tensor, `tokens`, which is read
through a memory map.

Any library for safetensors can open a shard. The metadata in the header of a shard identifies the tokens by the format
version and the fingerprint of the prepared corpus, the SHA-256 of the tokenizer, and the name of the split.
"""

import json
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfscale.data.errors import DataError

TokenArray = NDArray[Any]
"""Type of a uint16 or uint32 array of token ids."""

NAMES: dict[Any, str] = {np.dtype(np.uint16): "U16", np.dtype(np.uint32): "U32"}
LONGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class ShardLabel:
    """Metadata in the header of a shard. All values are strings, as safetensors requires."""

    format: str
    fingerprint: str
    tokenizer_sha256: str
    split: str


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the dtype of the tokens of a vocabulary: uint16 for fewer than 65,536 tokens, and uint32 otherwise."""
    return np.dtype(np.uint16 if vocab_size < 65536 else np.uint32)


def header_of(label: ShardLabel, dtype: np.dtype[Any], tokens: int) -> bytes:
    """Return the header of a shard: the bytes that precede the tokens."""
    tensor = {"dtype": NAMES[dtype], "shape": [tokens], "data_offsets": [0, tokens * dtype.itemsize]}
    header = json.dumps({"__metadata__": asdict(label), "tokens": tensor}).encode()
    header += b" " * (-len(header) % 8)  # so that the tokens start at a multiple of their size
    return len(header).to_bytes(8, "little") + header


def read_shard(path: Path, label: ShardLabel, dtype: np.dtype[Any]) -> TokenArray:
    """Return the tokens of a shard, [tokens], as a read-only memory map.

    Raises:
        DataError: the file is missing, is not a token shard, is truncated, or has a different label or token type.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(LONGEST_HEADER, size - 8):
                raise _damaged(path, "the file is not a safetensors file")
            header = json.loads(file.read(length))
        metadata, tensor = header["__metadata__"], header["tokens"]
        (count,), kind, (start, end) = tensor["shape"], tensor["dtype"], tensor["data_offsets"]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}. Remove the folder and prepare the corpus again.") from error
    except DataError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(path, "the file is a safetensors file without tokens") from error
    if not isinstance(metadata, dict) or not all(type(n) is int for n in (count, start, end)) or count < 1:
        raise _damaged(path, "the file is a safetensors file without tokens")
    for name, expected in asdict(label).items():
        if metadata.get(name) != expected:
            raise _damaged(path, f"{name} is {str(metadata.get(name))[:80]}, but the manifest states {expected}")
    if kind != NAMES[dtype]:
        raise _damaged(path, f"the tokens are {str(kind)[:80]}, but the vocabulary requires {NAMES[dtype]}")
    if start != 0 or end != count * dtype.itemsize or size != 8 + length + end:
        raise _damaged(path, f"the file has {size} bytes, but its header states {8 + length + end}")
    return np.asarray(np.memmap(path, dtype, mode="r", offset=8 + length, shape=(count,)))


def _damaged(path: Path, fault: str) -> DataError:
    return DataError(f"{path}: {fault}. Remove the folder and prepare the corpus again.")


class Tokens:
    """The tokens of a split as one sequence that is read from disk on demand."""

    def __init__(self, shards: Sequence[TokenArray], vocab_size: int = 2**32) -> None:
        assert shards
        self._shards, self._vocab_size = list(shards), vocab_size
        self._starts = [0, *accumulate(map(len, shards))]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, span: slice) -> TokenArray:
        """Return the tokens `start` to `stop - 1`, [tokens]. Tokens in one shard are returned as a view, and tokens in
        several shards are copied.

        Raises:
            DataError: a token is not in the vocabulary.
        """
        start, stop, step = span.indices(len(self))
        assert step == 1, "tokens are read in order"
        parts = []
        index = bisect_right(self._starts, start) - 1
        while start < stop:
            offset = self._starts[index]
            part = self._shards[index][start - offset : stop - offset]
            if part.max(initial=0) >= self._vocab_size:
                raise DataError(
                    f"token {part.max()} near position {start:,} must be less than the vocabulary size "
                    f"{self._vocab_size}: the shard is damaged. Remove the folder and prepare the corpus again."
                )
            parts.append(part)
            start += len(part)
            index += 1
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else self._shards[0][:0]
