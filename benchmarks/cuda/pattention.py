"""Part `pattention`: one Pattention, forward and backward, at the published shapes."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.cuda.check import Check
from benchmarks.pattention import (
    OFFICIAL,
    PRODUCTS,
    WIDTH,
    Forward,
    make_implementations,
    make_operands,
    run_both_passes,
    run_products,
)
from benchmarks.step import plain
from tfscale.models.parameter_tokens import TokenGroup

OURS, MLP, PADDED, COMPILED_OFFICIAL = "ours", "MLP", "ours, padded", "official, compiled"
SHAPES = {
    8560: (MLP, OURS, OFFICIAL, PRODUCTS, "recomputing", COMPILED_OFFICIAL, "plain"),
    2140: (OURS, PADDED, MLP, OFFICIAL, PRODUCTS),
    34480: (MLP, OURS, OFFICIAL, PRODUCTS),
    576: (MLP, OURS, OFFICIAL, PRODUCTS),
    8620: (OURS, PADDED, OFFICIAL, PRODUCTS),
}
"""Parameter tokens, the most telling shape first, and the implementations that are measured."""
ALIGNED = 64
"""Rows that padding fills up to a multiple of."""


def pattention(check: Check) -> None:
    """Measure every shape."""
    for n, names in SHAPES.items():
        rows = n // 20 if check.tiny else n
        for name in names:
            check.record.attempt(f"n={rows}, {name}", partial(_measure, check, rows, name))


def _measure(check: Check, n: int, name: str) -> Mapping[str, Any]:
    check.fresh()
    tokens = 256 if check.tiny else 8192
    run = _run(check, n, tokens, name)
    seconds = check.seconds(run)
    tflops = 12 * tokens * n * WIDTH / seconds / 1e12
    return {"milliseconds": 1e3 * seconds, "tflops": tflops, "peak_bytes": check.peak()}


def _run(check: Check, n: int, tokens: int, name: str) -> Callable[[], object]:
    given = make_operands(check.settings, n, tokens)
    if name == PRODUCTS:
        dtype = torch.bfloat16 if check.on_cuda else torch.float32
        return partial(run_products, *(each.detach().to(dtype) for each in given))
    made = make_implementations(check.settings, n)
    others: dict[str, Forward] = {
        COMPILED_OFFICIAL: made[OFFICIAL],
        PADDED: lambda x, keys, values: _padded(n, x, keys, values),
    }
    if check.on_cuda:
        others = {each: torch.compile(forward) for each, forward in others.items()}
    return partial(run_both_passes, check.settings, {**made, **others}[name], *given)


def _padded(n: int, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Pattention with rows filled up to a multiple; zero keys and values add nothing to its norm or its output."""
    pad = (0, 0, 0, -n % ALIGNED)
    return plain(x, F.pad(keys, pad), F.pad(values, pad), (TokenGroup(n, math.sqrt(n)),))
