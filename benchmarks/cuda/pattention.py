"""Part `pattention`, which measures a single Pattention projection, and the joint projection to queries, keys and
values, at the published shapes.

ours           default of the models: aligned weights, and one product for the scores of all projections
Triton         as `ours`, with launcher.kernels=triton
Gram           norms computed from the Gram matrix of the keys, before the scores
definition     the definition, compiled, with unaligned weights and one projection after another
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.cuda.check import Check
from benchmarks.gram import gram_pattention
from benchmarks.pattention import (
    OFFICIAL,
    PRODUCTS,
    WIDTH,
    make_implementations,
    make_operands,
    run_products,
)
from tfscale.models.parameter_tokens import NormActivation, TokenGroup
from tfscale.models.pattention import pattentions, plain_pattention

Function = Callable[..., Tensor]
"""Function that returns the outputs for x [tokens, WIDTH] and the keys and values [n, WIDTH] of each projection in
turn."""

OURS, TRITON, GRAM, DEFINITION = "ours", "Triton", "Gram", "definition"
WAYS = (OURS, TRITON, GRAM, DEFINITION)
MLP, RECOMPUTING, COMPILED_OFFICIAL = "MLP", "recomputing", "official, compiled"
SHAPES: dict[tuple[int, int], tuple[str, ...]] = {
    (1, 8560): (*WAYS, MLP, OFFICIAL, PRODUCTS),
    (3, 2140): WAYS,
    (3, 576): WAYS,
    (1, 34480): (OURS, TRITON, GRAM, MLP, PRODUCTS),
    (1, 2140): (OURS, TRITON, DEFINITION, PRODUCTS),
    (1, 2304): (OURS, TRITON, GRAM, MLP),
    (3, 8620): (OURS, TRITON, DEFINITION),
    (1, 8620): (OURS, RECOMPUTING, OFFICIAL, COMPILED_OFFICIAL),
}
"""Implementations to measure, by number of projections and number of parameter tokens. The most informative shape is
the first."""


def pattention(check: Check) -> None:
    """Measure each shape in `SHAPES` with its implementations."""
    for (projections, n), names in SHAPES.items():
        rows = n // 20 if check.tiny else n
        for name in names:
            if name == TRITON and not check.on_cuda:
                continue  # the kernels need a GPU
            label = f"n={'3x' * (projections == 3)}{rows}, {name}"
            check.record.attempt(label, partial(_measure, check, projections, rows, name))


def _measure(check: Check, projections: int, n: int, name: str) -> Mapping[str, Any]:
    check.reset()
    tokens = 256 if check.tiny else 8192
    run = _run(check, projections, n, tokens, name)
    seconds = check.seconds(run)
    tflops = 12 * tokens * projections * n * WIDTH / seconds / 1e12
    return {"milliseconds": 1e3 * seconds, "tflops": tflops, "peak_bytes": check.peak()}


def _run(check: Check, projections: int, n: int, tokens: int, name: str) -> Callable[[], object]:
    given = [make_operands(check.settings, n, tokens) for _ in range(projections)]
    x, weights = given[0][0], [each for _, *pair, _ in given for each in pair]
    if name == PRODUCTS:
        dtype = torch.bfloat16 if check.on_cuda else torch.float32
        return partial(run_products, *(each.detach().to(dtype) for each in given[0]))
    function = _function(check, n, name)
    gradient = torch.randn(tokens, projections, WIDTH, device=check.device, dtype=x.dtype)

    def run() -> None:
        with check.settings.autocast():
            out = function(x, *weights)
        torch.autograd.grad(out, (x, *weights), gradient.view_as(out))

    return run


def _function(check: Check, n: int, name: str) -> Function:
    groups = (TokenGroup(n, math.sqrt(n)),)
    kind: NormActivation = "l2_norm_gelu"
    ways: dict[str, Function] = {
        OURS: lambda x, *w: pattentions(x, [*_pairs(w)], groups, kind),
        TRITON: lambda x, *w: pattentions(x, [*_pairs(w)], groups, kind, kernels=True),
        GRAM: lambda x, *w: gram_pattention(x, [*_pairs(w)], groups[0].tau),
        DEFINITION: lambda x, *w: torch.stack([plain_pattention(x, *pair, groups, kind) for pair in _pairs(w)], dim=-2),
    }
    made = make_implementations(check.settings, n)
    if name not in ways and name != COMPILED_OFFICIAL:
        return made[name]
    function = ways.get(name, made[OFFICIAL])
    return torch.compile(function) if check.on_cuda else function


def _pairs(weights: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(weights[::2], weights[1::2], strict=True)
