"""Successive halving (arXiv 1603.06560), which trains all candidates with few tokens, and the best candidates
again with more tokens. Each number of tokens is called a rung.

The search has no state. Each call of `search` starts from the beginning, uses all losses that are known, and returns
when it needs losses that are not known yet. Losses from earlier searches over other ranges are therefore reused.
"""

import math
from collections.abc import Callable, Collection, Sequence

from tfscale.tune.sweep import CLOSEST, FINE_STEP, Choice, Position, Sweep, beyond, choose, is_rate, rounded

LossOf = Callable[[float, int], float | None]
"""Function that returns the loss of a candidate value in a rung, in nats per token. The loss is inf if training
diverged, and None if it is not known yet."""


def search(first: Sequence[float], sweep: Sweep, loss_of: LossOf, most: float = math.inf) -> Choice | None:
    """Return the best value with its loss, or None if a loss that the search needs is not known yet. The search starts
    with the candidates in `first`, and may add other values up to `most`. If training diverges with every candidate,
    the returned loss is infinite."""
    kept, tried = list(first), set(first)
    losses: dict[float, float] = {}
    place: Position = "lowest"  # position of the best value in the last rung with several values
    for rung in range(sweep.rungs):
        found = _climb(kept, tried, rung, sweep, loss_of, most)
        if found is None:
            return None
        losses, tried = found, tried | found.keys()
        if len(losses) > 1:
            place = choose(losses).place
        alive = [value for value, loss in losses.items() if loss < math.inf]
        if not alive:
            return choose(losses)
        kept = sorted(alive, key=lambda value: losses[value])[: sweep.kept(len(first), rung + 1)]
    best = Choice(kept[0], losses[kept[0]], place)
    return _refine(best, tried, sweep, loss_of) if sweep.refine else best


def _climb(
    kept: Sequence[float], tried: Collection[float], rung: int, sweep: Sweep, loss_of: LossOf, most: float
) -> dict[float, float] | None:
    """Return the losses in a rung by candidate value, or None if a loss that the search needs is not known yet.

    While the best value is at an edge of the range, the next value beyond this edge is added, even if an earlier rung
    eliminated that value. At most `sweep.further` values are added. A rung with a single value is extended only if
    training with this value diverges.
    """
    losses = _request(kept, rung, loss_of)
    while losses is not None and (len(losses) > 1 or math.inf in losses.values()):
        further = beyond(losses, tried)
        if further is None or further > most or len(losses) == len(kept) + sweep.further:
            break
        more = _request([further], rung, loss_of)
        losses = None if more is None else losses | more
    return losses


def _refine(best: Choice, tried: Collection[float], sweep: Sweep, loss_of: LossOf) -> Choice | None:
    """Return the best value of a finer search with all tokens, which starts with the neighbours of `best` at a distance
    of a factor of sqrt(2). Return None if a loss that the search needs is not known yet.

    While the best value is at an edge, the range is extended, first by a factor of sqrt(2) and then by factors of 2,
    because rungs with few tokens can prefer rates that are much too low or too high.
    """
    losses = {best.value: best.loss}
    while True:
        best = choose(losses)
        if len(losses) == 1 or best.place == "interior":
            steps = [1 / FINE_STEP, FINE_STEP]
        elif len(losses) < 3 + sweep.further:
            further = FINE_STEP if len(losses) == 3 else 2.0
            steps = [1 / further if best.place == "lowest" else further]
        else:
            return best
        new = [value for step in steps if (value := _almost(best.value * step, (*tried, *losses))) not in losses]
        if not all(map(is_rate, new)) or not new:
            return best
        more = _request(new, sweep.rungs - 1, loss_of)
        if more is None:
            return None
        losses |= more


def _request(values: Sequence[float], rung: int, loss_of: LossOf) -> dict[float, float] | None:
    losses = {value: loss_of(value, rung) for value in values}
    known = {value: loss for value, loss in losses.items() if loss is not None}
    return known if len(known) == len(losses) else None


def _almost(value: float, tried: Collection[float]) -> float:
    """Return a tried value within 1% of `value`, or `value` rounded if no tried value is that close."""
    return next((each for each in tried if max(each / value, value / each) < CLOSEST), rounded(value))
