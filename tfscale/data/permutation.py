"""Pseudo-random permutation of n items that is computed instead of stored.

The permutation is a Feistel network with cycle walking (Black and Rogaway, "Ciphers with Arbitrary Finite Domains",
2002). An item is computed from its position with a few integer operations, for any n. Therefore a random order of
billions of training sequences needs no memory and no initial shuffle, and every rank computes its own slice. The order
cannot change between versions of a library, unlike an order from a library's random generator.
"""

import math

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8
MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """Return a 64-bit hash of a 64-bit integer: one step of the generator splitmix64 (Steele, Lea and Flood, 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def permute(places: NDArray[np.uint64], n: int, key: int) -> NDArray[np.uint64]:
    """Return the items at the positions `places` of the permutation of n items that is selected by the 64-bit `key`.
    All positions must be below n."""
    side = np.uint64(math.isqrt(n - 1) + 1)  # the network permutes a grid of side x side >= n items
    keys = [np.uint64(mix(key + turn)) for turn in range(ROUNDS)]
    items = _encipher(places, side, keys)
    while (outside := items >= n).any():
        items[outside] = _encipher(items[outside], side, keys)
    return items


def _encipher(items: NDArray[np.uint64], side: np.uint64, keys: list[np.uint64]) -> NDArray[np.uint64]:
    left, right = items // side, items % side
    for key in keys:
        left, right = right, (left + _mix(right ^ key) % side) % side
    return left * side + right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
