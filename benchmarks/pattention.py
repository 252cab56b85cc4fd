"""Pattention as in `tfscale bench`; beside it the matrix products that it needs and, on the CPU, the official order
without our allocator settings."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from torch import Tensor

from benchmarks.elsewhere import Elsewhere, Turn
from tfscale.bench import pattention
from tfscale.bench.contest import Contestant
from tfscale.bench.pattention import OFFICIAL, make_contestants, make_operands
from tfscale.bench.rows import Found
from tfscale.bench.settings import Settings

PRODUCTS, AS_USED = "six products", "official, glibc's own"


def measure(settings: Settings) -> Iterator[Found]:
    """Measures every shape."""
    return pattention.measure(settings, _make)


def _make(settings: Settings, n: int, tokens: int) -> list[Contestant]:
    usual = make_contestants(settings, n, tokens)
    bare = [each.detach().to(settings.dtype) for each in make_operands(settings, n, tokens)]
    turn = partial(settings.take_turn, partial(run_products, *bare))
    made = [*usual, replace(usual[0], name=PRODUCTS, turn=turn, figures=dict)]
    if not settings.on_cuda:
        process = Elsewhere(prepare_official, settings, n, tokens)
        made.append(replace(usual[0], name=AS_USED, turn=process.turn, figures=dict, close=process.close))
    return made


def run_products(x: Tensor, keys: Tensor, values: Tensor, gradient: Tensor) -> None:
    """Computes the two matrix products of a forward pass and the four of a backward pass."""
    scores = x @ keys.T
    _ = scores @ values, gradient @ values.T, scores.T @ gradient, scores @ keys, scores.T @ x


def prepare_official(settings: Settings, n: int, tokens: int) -> Turn:
    """Makes a turn of the official order in this process."""
    settings.apply()
    return next(each.turn for each in make_contestants(settings, n, tokens) if each.name == OFFICIAL)
