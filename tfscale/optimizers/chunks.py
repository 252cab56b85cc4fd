"""Chunks of weights that are updated together as whole matrices. Planning also uses this module, so it does not need
torch."""

from collections.abc import Iterator, Sequence

HELD = 1 << 24
"""Number of values of whole matrices at which a chunk is full. Each chunk is updated before the next chunk is gathered,
so the whole matrices of all weights are never in memory at the same time."""


def chunks(sizes: Sequence[int], ranks: int) -> Iterator[slice]:
    """Yield slices of the weights that are updated together. All slices except the last have at least `HELD` values and
    one weight per rank.

    Args:
        sizes: number of values of each weight.
    """
    begin = 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or (end - begin >= ranks and sum(sizes[begin:end]) >= HELD):
            yield slice(begin, end)
            begin = end
