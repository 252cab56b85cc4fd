"""Chunks of weights that are updated together as whole matrices. Planning uses them too, so torch is not imported."""

from collections.abc import Iterator, Sequence

HELD = 1 << 24
"""Number of values of whole matrices from which on no further weight joins a chunk. Each chunk is updated before the
next one is gathered, so the matrices of the whole model are never held at the same time."""


def chunks(sizes: Sequence[int], ranks: int) -> Iterator[slice]:
    """Yield the weights that are updated together: those of about `HELD` values, with at least one for each rank.

    Args:
        sizes: number of values of each weight.
    """
    begin = 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or (end - begin >= ranks and sum(sizes[begin:end]) >= HELD):
            yield slice(begin, end)
            begin = end
