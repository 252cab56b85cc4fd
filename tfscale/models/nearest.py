"""Search for the model size whose number of parameters is nearest to a target."""

import math
from bisect import bisect_left
from collections.abc import Callable


def nearest(amount: Callable[[int], int], wanted: int, most: int) -> int:
    """Return the integer i from 1 to `most` for which amount(i) is nearest to `wanted` in ratio. The function `amount`
    must be increasing."""
    above = 1 + bisect_left(range(1, most), wanted, key=amount)
    return min((max(1, above - 1), above), key=lambda number: abs(math.log(amount(number) / wanted)))
