"""Batches of tokens for training and validation.

For a given corpus and context, a training sequence depends only on the order seed (`data.shuffle_seed`) and on the
index of the sequence. Therefore a run can resume from any step on any number of devices, and all arms of a comparison
read the same text in the same order.

The order is a pseudo-random permutation that is computed instead of stored: a Feistel network with cycle walking (Black
and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). The sequence at a position is computed with a few integer
operations, so billions of sequences need no memory and no initial shuffle, and every rank computes only the sequences
that it reads. Unlike an order from the random generator of a library, this order cannot change between versions of the
library.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from tfscale.data.errors import DataError
from tfscale.data.shards import Tokens

ROUNDS = 8
MASK = (1 << 64) - 1


class Batches:
    """An infinite series of training sequences, whose indices start at 0.

    Each epoch divides the training split into non-overlapping windows of `context` tokens and visits each window once,
    in random order. The split is treated as a ring that is cut at a random position in each epoch. Therefore each
    epoch has different windows, and omits different tokens (fewer than `context`). All epochs have the same number of
    windows, so the epoch and the position of a sequence can be computed from its index.

    Raises:
        DataError: the split has fewer than `context` + 1 tokens.
    """

    def __init__(self, tokens: Tokens, context: int, order_seed: int) -> None:
        if len(tokens) <= context:
            raise DataError(
                f"model.context={context}: must be less than {len(tokens):,}, the number of tokens in the training "
                "split; try more text or a shorter context"
            )
        self._tokens, self._context, self._seed = tokens, context, order_seed
        self.windows = len(tokens) // context
        """Number of training sequences per epoch."""

    def sequences(self, first: int, count: int) -> torch.Tensor:
        """Return the inputs and the targets of the sequences `first` to `first + count - 1`, stacked in one int64
        tensor [2, count, context]. Each target is the token that follows its input token."""
        rows = np.empty((count, self._context + 1), np.int64)
        for row, start in zip(rows, self._starts(first, count), strict=True):
            piece = self._tokens[start : start + len(row)]
            row[: len(piece)] = piece
            if len(piece) < len(row):
                row[len(piece) :] = self._tokens[: len(row) - len(piece)]
        return torch.from_numpy(np.stack((rows[:, :-1], rows[:, 1:])))

    def _starts(self, first: int, count: int) -> Iterator[int]:
        assert first >= 0
        stop = first + count
        for epoch in range(first // self.windows, -(-stop // self.windows)):
            begin = epoch * self.windows
            positions = np.arange(max(first, begin) - begin, min(stop, begin + self.windows) - begin, dtype=np.uint64)
            key = mix(mix(self._seed) ^ epoch)
            cut = mix(key ^ 1) % len(self._tokens)
            for window in permute(positions, self.windows, key).tolist():
                yield (cut + window * self._context) % len(self._tokens)


def heldout_batches(
    tokens: Tokens, context: int, n_tokens: int, batch: int, start: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Return an iterator over validation batches. Each batch is a pair of inputs and targets, both int64 tensors [up to
    `batch`, context].

    The sequences are consecutive windows of the validation split, starting at token `start`. There are
    `n_tokens // context` windows. Each target is the token that follows its input token. To convert the loss per token
    to the loss per UTF-8 byte, divide it by `SplitRecord.bytes_per_token`.

    Raises:
        DataError: `n_tokens` is less than `context`, or the split has too few tokens for the windows and the last
            target.
    """
    evaluated = n_tokens // context * context
    if evaluated < 1:
        raise DataError(f"data.validation_tokens={n_tokens}: must be at least model.context={context}")
    if len(tokens) <= start + evaluated:
        raise DataError(
            f"data.validation_tokens={n_tokens}: must be smaller, because the validation split has {len(tokens):,} "
            f"tokens but {start + evaluated + 1:,} are needed; try a smaller value, more text, or a larger "
            "data.validation"
        )
    size, stop = batch * context, start + evaluated
    spans = (tokens[begin : min(begin + size, stop) + 1].astype(np.int64) for begin in range(start, stop, size))
    return (
        (torch.from_numpy(span[:-1]).view(-1, context), torch.from_numpy(span[1:]).view(-1, context)) for span in spans
    )


def mix(value: int) -> int:
    """Return a 64-bit hash of the lowest 64 bits of an integer."""
    return int(_mix(np.array([value & MASK], np.uint64))[0])


def permute(positions: NDArray[np.uint64], n: int, key: int) -> NDArray[np.uint64]:
    """Return the elements at the given positions of a pseudo-random permutation of the integers 0 to n - 1. The 64-bit
    `key` selects the permutation. All positions must be less than n. The result has the shape of `positions`."""
    width = np.uint64(math.isqrt(n - 1) + 1)  # the network permutes a grid of width x width >= n items
    keys = _mix(np.uint64(key) + np.arange(ROUNDS, dtype=np.uint64))
    items = _encipher(positions, width, keys)
    while (outside := items >= n).any():
        items[outside] = _encipher(items[outside], width, keys)
    return items


def _encipher(items: NDArray[np.uint64], width: np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    left, right = items // width, items % width
    for key in keys:
        left, right = right, (left + _mix(right ^ key) % width) % width
    return left * width + right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash each integer with one step of the generator splitmix64 (Steele, Lea and Flood, 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
