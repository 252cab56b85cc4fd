"""Measurement of contestants, which are the implementations that a benchmark compares. Contestants take turns in
rounds. A matrix product takes part in all rounds, and its speed is used as the peak of the device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter

import torch

from tfscale.bench.rows import Row
from tfscale.bench.settings import Settings

MATRIX_PRODUCT = "matrix product"
PRODUCTS = 8
"""Number of matrix products per run. A single product would be so short that other load on the machine would not affect
it in the same way as a training step."""


@dataclass(frozen=True)
class Contestant:
    """Implementation to measure, with the FLOPs and tokens of one run."""

    name: str
    turn: Callable[[], float]
    """Function that runs the contestant for one turn, and returns the mean time per run in seconds."""
    flops: float
    tokens: int
    figures: Callable[[], dict[str, float]] = dict
    """Function that returns further measurements by name, called after all rounds."""
    close: Callable[[], object] = lambda: None
    """Function that frees the contestant's resources, called after all rounds and before any further measurements."""


def measure_case(
    part: str, case: str, contestants: Sequence[Contestant], settings: Settings, seconds: float, least: int
) -> Iterator[Row]:
    """Measure the contestants of a case in rounds (`take_turns`), for at least `seconds` seconds and at least `least`
    rounds, or for only two rounds if `settings.quick` is True. Close the contestants. Yield one row per contestant, and
    one row for the matrix product."""
    product, product_flops = make_matrix_product(settings)
    turns = {each.name: each.turn for each in contestants}
    turns[MATRIX_PRODUCT] = partial(settings.take_turn, product)
    found = take_turns(turns, *((0.0, 2) if settings.quick else (seconds, least)))
    del turns, product  # free the matrices, which must not be counted as memory
    for each in contestants:
        each.close()
    peak = product_flops / median(found[MATRIX_PRODUCT])
    for each in contestants:
        typical = median(found[each.name])
        speeds = {"tokens_per_second": each.tokens / typical, "share_of_peak": each.flops / typical / peak}
        yield Row(part, case, each.name, found[each.name], {**speeds, **each.figures()})
    yield Row(part, case, MATRIX_PRODUCT, found[MATRIX_PRODUCT], {"tflops": peak / 1e12})


def make_matrix_product(settings: Settings) -> tuple[Callable[[], object], float]:
    """Return a function that multiplies square matrices in the precision of training, and the FLOPs of one call of this
    function."""
    side = 8192 if settings.on_cuda else 2048
    a, b = (torch.randn(side, side, device=settings.device, dtype=settings.dtype) for _ in range(2))
    out = torch.empty_like(a)

    def run() -> None:
        for _ in range(PRODUCTS):
            torch.mm(a, b, out=out)

    return run, PRODUCTS * 2.0 * side**3


def take_turns(turns: Mapping[str, Callable[[], float]], seconds: float, least: int) -> dict[str, tuple[float, ...]]:
    """Call each function in `turns` once per round, after a warm-up call that is not counted, and return the values
    that each function returned. Rounds begin until `seconds` seconds have passed and at least `least` rounds have
    begun. The order is reversed after every round, so that other load on the machine affects all functions equally."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    for turn in turns.values():
        turn()
    until, rounds, order = perf_counter() + seconds, 0, list(turns)
    while perf_counter() < until or rounds < least:
        for name in order:
            found[name].append(turns[name]())
        order.reverse()
        rounds += 1
    return {name: tuple(times) for name, times in found.items()}
