"""Pattention, forward and backward, at the published shapes: time and memory.

ours             what the models use; on CUDA compiled, as there
recomputing      the same with recompute=pattention: scores are made again in the backward pass
plain            the definition with autograd's backward pass
official         the official order of operations
MLP              a GELU network of equal size, of linear layers without biases; compiled where ours is
six products     the matrix products that all of them have to make

All of them have the allocator's settings of a stage. On the CPU the official order is measured once more in a process
with glibc's own settings, as its users run it (`tfscale.bench.elsewhere`).
"""

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from tfscale.bench import gemm
from tfscale.bench.apart import KNOWN, apart, exact_memory, peak_above, resident
from tfscale.bench.elsewhere import Elsewhere, serve, start
from tfscale.bench.reference import official, plain
from tfscale.bench.rows import Found, Row, Rows, Verdict
from tfscale.bench.settings import Settings, take_turns, timed
from tfscale.children import python
from tfscale.models.config import TokenGroup
from tfscale.models.pattention import pattention

PART = "pattention"
WIDTH = 768
SHAPES = (576, 2140, 8620, 8560, 34480)
"""Parameter tokens of the paper's chain: three sizes' projections, two feed-forward layers."""
PRODUCTS = "six products"
OFFICIAL, AS_USED = "official", "official, glibc's own"
Forward = Callable[[Tensor, Tensor, Tensor], Tensor]


def measure(settings: Settings) -> Iterator[Found]:
    """Times and peaks of every shape."""
    tokens, seconds, least = (256, 0.0, 2) if settings.quick else (1024, 8.0, 5)
    if settings.device == "cuda":
        tokens *= 8
    for n in SHAPES:
        if settings.wants(case_of(n)):
            yield from _shape(settings, n, tokens, seconds, least)


def case_of(n: int) -> str:
    """The case of a shape."""
    return f"n = {n}"


def _shape(settings: Settings, n: int, tokens: int, seconds: float, least: int) -> Iterator[Row]:
    runs = _runs(settings, n, tokens)
    turns: dict[str, Callable[[], float]] = {name: partial(timed, run, settings) for name, run in runs.items()}
    there = _official_elsewhere(settings, n, tokens) if settings.device == "cpu" else None
    if there:
        turns[AS_USED] = there.turn
    found = take_turns(turns, seconds, least, warm_up=3 if _compiled(settings) else 1)
    if there:
        there.leave()
    peak = gemm.rate(settings, found)
    for name, times in found.items():
        figures = {"tflops": peak / 1e12}
        if name != gemm.NAME:
            share = 12 * tokens * n * WIDTH / median(times) / peak
            figures = {"share_of_peak": share, **_memory(settings, n, tokens, name)}
        yield Row(PART, case_of(n), name, times, figures)


def _official_elsewhere(settings: Settings, n: int, tokens: int) -> Elsewhere:
    given = [json.dumps(asdict(settings)), str(n), str(tokens)]
    command = python("tfscale.bench.pattention", *given)
    return Elsewhere(start(command, ours=False), 2 * n * WIDTH)


def _runs(settings: Settings, n: int, tokens: int) -> dict[str, Callable[[], object]]:
    x, keys, values, gradient = given = operands(settings, n, tokens)
    dtype = torch.bfloat16 if settings.device == "cuda" else torch.float32
    bare = tuple(each.detach().to(dtype) for each in given)

    def run(forward: Forward) -> Callable[[], object]:
        return lambda: both_passes(settings, forward, x, keys, values, gradient)

    runs = {name: run(forward) for name, forward in implementations(settings, n).items()}
    return {**runs, PRODUCTS: lambda: products(*bare), gemm.NAME: gemm.matrix_product(settings)}


def implementations(settings: Settings, n: int) -> dict[str, Forward]:
    """Functions of (x, keys, values)."""
    groups = (TokenGroup(n, math.sqrt(n)),)
    compiled = torch.compile if _compiled(settings) else lambda function: function
    return {
        "ours": compiled(lambda x, k, v: pattention(x, k, v, groups, "l2_norm_gelu")),
        "recomputing": compiled(lambda x, k, v: pattention(x, k, v, groups, "l2_norm_gelu", recompute=True)),
        "plain": lambda x, k, v: plain(x, k, v, groups),
        OFFICIAL: lambda x, k, v: official(x, k, v, groups),
        "MLP": compiled(lambda x, k, v: F.linear(F.gelu(F.linear(x, k)), v.T)),
    }


def _compiled(settings: Settings) -> bool:
    return settings.device == "cuda"


def operands(settings: Settings, n: int, tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, keys, values and the gradient of the output; what flows is as in training, weights are float32."""
    device, flowing = settings.device, torch.bfloat16 if settings.device == "cuda" else torch.float32
    x = torch.randn(tokens, WIDTH, device=device, dtype=flowing).requires_grad_()
    keys, values = ((0.02 * torch.randn(n, WIDTH, device=device)).requires_grad_() for _ in range(2))
    return x, keys, values, torch.randn(tokens, WIDTH, device=device, dtype=flowing)


def both_passes(
    settings: Settings, forward: Forward, x: Tensor, keys: Tensor, values: Tensor, gradient: Tensor
) -> None:
    """Forward and backward."""
    with settings.autocast():
        out = forward(x, keys, values)
    torch.autograd.grad(out, (x, keys, values), gradient)


def products(x: Tensor, keys: Tensor, values: Tensor, gradient: Tensor) -> None:
    """The two products of a forward pass and the four of a backward one."""
    scores = x @ keys.T
    _ = scores @ values, gradient @ values.T, scores.T @ gradient, scores @ keys, scores.T @ x


def _memory(settings: Settings, n: int, tokens: int, name: str) -> dict[str, float]:
    if name in (PRODUCTS, AS_USED):
        return {}
    if settings.device == "cuda":
        return memory_of(settings, n, tokens, name)
    return apart(memory_here, settings, n, tokens, name) if KNOWN else {}


def memory_here(settings: Settings, n: int, tokens: int, name: str) -> dict[str, float]:
    """`memory_of`, of a process that does nothing else."""
    settings.apply()
    exact_memory()
    return memory_of(settings, n, tokens, name)


def memory_of(settings: Settings, n: int, tokens: int, name: str) -> dict[str, float]:
    """Bytes kept from the forward pass to the backward one, and at the peak of both, gradients of the weights left
    out: of this process, or of the allocator on CUDA."""
    forward, (x, keys, values, gradient) = implementations(settings, n)[name], operands(settings, n, tokens)
    both_passes(settings, forward, x, keys, values, gradient)  # the matrix products' own buffers stay
    kept = 0

    def run() -> None:
        nonlocal kept
        with settings.autocast():
            out = forward(x, keys, values)
        kept = _held(settings) - before
        torch.autograd.grad(out, (x, keys, values), gradient)

    before = _held(settings)
    if settings.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        peak = peak_above(run)
    return {"kept_bytes": kept, "peak_bytes": peak - keys.nbytes - values.nbytes}


def _held(settings: Settings) -> int:
    return torch.cuda.memory_allocated() if settings.device == "cuda" else resident()


def verdicts(rows: Rows, settings: Settings) -> Iterator[Verdict]:
    """Speed against the official order of operations, the MLP and itself; memory of recomputing."""
    target = 2.0 if settings.device == "cuda" else 1.2
    for n in (8560, 34480):
        for name in (OFFICIAL, AS_USED):
            if pair := rows.both(PART, case_of(n), name, "ours"):
                speed = pair[0].median / pair[1].median
                yield Verdict(PART, f"n = {n}: speed over {name}", speed, target, True)
    for n in SHAPES:
        if pair := rows.both(PART, case_of(n), "ours", "MLP"):
            yield Verdict(PART, f"n = {n}: time over the MLP's", pair[0].median / pair[1].median, 1.1, False)
    largest = case_of(SHAPES[-1])
    if pair := rows.both(PART, largest, "recomputing", "plain"):
        here, there = pair
        if "peak_bytes" in here.figures:
            share = here.figures["peak_bytes"] / there.figures["peak_bytes"]
            yield Verdict(PART, f"{largest}: memory of recomputing over the plain one's", share, 0.15, False)
        time = here.median / there.median
        yield Verdict(PART, f"{largest}: time of recomputing over the plain one's", time, 1.25, False)


def main() -> None:
    """The official order, a turn for every line on standard input."""
    settings, n, tokens = Settings(**json.loads(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    settings.apply()
    serve(_runs(settings, n, tokens)[OFFICIAL])


if __name__ == "__main__":
    main()
