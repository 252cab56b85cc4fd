"""Sizes that come nearest to a wanted amount."""

import math
from bisect import bisect_left
from collections.abc import Callable


def nearest(amount: Callable[[int], int], wanted: int, most: int) -> int:
    """The whole number from 1 to `most` whose amount, which rises with it, is nearest to `wanted` in ratio."""
    above = 1 + bisect_left(range(1, most), wanted, key=amount)
    return min((max(1, above - 1), above), key=lambda number: abs(math.log(amount(number) / wanted)))
