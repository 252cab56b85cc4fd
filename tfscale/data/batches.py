"""Batches of tokens for training and validation.

A training sequence is a pure function of the order seed (`data.shuffle_seed`) and the index of the sequence, without
state between calls. Therefore a run can resume from any step on any number of devices, and all arms of a comparison
read the same text in the same order.
"""

from collections.abc import Iterator

import numpy as np
import torch

from tfscale.data.errors import DataError
from tfscale.data.permutation import mix, permute
from tfscale.data.shards import Tokens


class Batches:
    """An infinite series of training sequences, whose indices start at 0.

    Each epoch divides the split into non-overlapping windows of `context` tokens and visits each window once, in random
    order. The split is treated as a ring that is cut at a random position in each epoch. Therefore the windows differ
    between epochs, and so do the remaining tokens, fewer than `context`, that no window contains. All epochs have the
    same number of windows, so the epoch and the position of a sequence can be computed from its index.

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
        """Return inputs and targets, int64 [2, count, context], of the sequences `first` to `first + count - 1`. Each
        target is the token after its input."""
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
            places = np.arange(max(first, begin) - begin, min(stop, begin + self.windows) - begin, dtype=np.uint64)
            key = mix(mix(self._seed) ^ epoch)
            cut = mix(key ^ 1) % len(self._tokens)
            for window in permute(places, self.windows, key).tolist():
                yield (cut + window * self._context) % len(self._tokens)


def heldout_batches(
    tokens: Tokens, context: int, n_tokens: int, batch: int, start: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Return an iterator over validation batches: inputs and targets, int64 [up to batch, context].

    The sequences are consecutive windows of the validation split, starting at token `start`. Their number is the
    largest that does not exceed `n_tokens` tokens, and they are the same in every call. Each target is the token after
    its input. The loss is computed on the targets, each of which encodes `PreparedData.heldout_bytes_per_token` UTF-8
    bytes on average.

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
    return _heldout(tokens, context, range(start, start + evaluated), batch)


def _heldout(tokens: Tokens, context: int, places: range, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for start in range(places.start, places.stop, batch * context):
        stop = min(start + batch * context, places.stop)
        span = tokens[start : stop + 1].astype(np.int64)
        yield torch.from_numpy(span[:-1]).view(-1, context), torch.from_numpy(span[1:]).view(-1, context)
