"""Benchmark of time and memory of Pattention, forward and backward, at the published shapes.

ours           the function that the models use, compiled on CUDA
recomputing    as `ours`, with recompute=pattention, which recomputes the scores in the backward pass
plain          the definition, differentiated by autograd
official       the order of operations of the official code
MLP            a GELU network of equal size with linear layers without biases, compiled on CUDA
six products   only the matrix products that Pattention needs
official, glibc's own    on the CPU, the official order with the default allocator settings
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.turn_process import Turn, TurnProcess
from tfscale.bench.apart import KNOWN, measure_peak, run_apart
from tfscale.bench.contest import Contestant, measure_case
from tfscale.bench.rows import Found
from tfscale.bench.settings import Settings
from tfscale.models.parameter_tokens import Groups, TokenGroup
from tfscale.models.pattention import pattentions, plain_pattention

PART = "pattention"
WIDTH = 768
SHAPES = (576, 2140, 8620, 8560, 34480)
"""Numbers of parameter tokens in the paper's chain, for the attention projections at three sizes and for the
feed-forward layers at two sizes."""
OURS, OFFICIAL = "ours", "official"
PRODUCTS, AS_USED = "six products", "official, glibc's own"
Forward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Function that returns y [tokens, WIDTH] for x [tokens, WIDTH], keys [n, WIDTH] and values [n, WIDTH]."""


def official(x: Tensor, keys: Tensor, values: Tensor, groups: Groups) -> Tensor:
    """Compute Pattention in the order of operations of the official GPU code (Haiyang-W/TokenFormer,
    `megatron/model/transformer.py`).

    The scores are multiplied by a scale of 1 and a matrix of ones, divided by their norm and multiplied by sqrt(n),
    followed by GELU and dropout with probability 0.
    """
    [group] = groups
    scale = 1
    ones = torch.ones(*x.shape[:-1], len(keys), dtype=x.dtype, device=x.device)
    scores = x @ keys.T * scale
    scores = scores * ones
    normed = scores / torch.norm(scores, p=2, dim=-1, keepdim=True) * math.sqrt(group.n)
    weights = torch.dropout(F.gelu(normed), 0.0, train=True)
    return weights @ values


def make_contestants(settings: Settings, n: int, tokens: int) -> list[Contestant]:
    """Return the contestants for one shape."""
    operands = make_operands(settings, n, tokens)
    return [
        Contestant(
            name,
            turn=partial(settings.take_turn, partial(run_both_passes, settings, forward, *operands)),
            flops=12.0 * tokens * n * WIDTH,
            tokens=tokens,
            figures=partial(_memory, settings, n, tokens, name),
        )
        for name, forward in make_implementations(settings, n).items()
    ]


def measure(settings: Settings) -> Iterator[Found]:
    """Measure all contestants at every shape."""
    tokens = (256 if settings.quick else 1024) * (8 if settings.on_cuda else 1)
    for n in SHAPES:
        if settings.wants(case := f"n = {n}"):
            settings.forget_compiled()
            yield from measure_case(PART, case, _make_all(settings, n, tokens), settings, seconds=8.0, least=5)


def _make_all(settings: Settings, n: int, tokens: int) -> list[Contestant]:
    usual = make_contestants(settings, n, tokens)
    bare = [each.detach().to(settings.dtype) for each in make_operands(settings, n, tokens)]
    turn = partial(settings.take_turn, partial(run_products, *bare))
    made = [*usual, replace(usual[0], name=PRODUCTS, turn=turn, figures=dict)]
    if not settings.on_cuda:
        process = TurnProcess(prepare_official, settings, n, tokens)
        made.append(replace(usual[0], name=AS_USED, turn=process.turn, figures=dict, close=process.close))
    return made


def run_products(x: Tensor, keys: Tensor, values: Tensor, gradient: Tensor) -> None:
    """Compute the two matrix products of a forward pass and the four of a backward pass."""
    scores = x @ keys.T
    _ = scores @ values, gradient @ values.T, scores.T @ gradient, scores @ keys, scores.T @ x


def prepare_official(settings: Settings, n: int, tokens: int) -> Turn:
    """Create the contestant `official` in this process and return the function that takes a turn."""
    settings.apply()
    return next(each.turn for each in make_contestants(settings, n, tokens) if each.name == OFFICIAL)


def make_implementations(settings: Settings, n: int) -> dict[str, Forward]:
    """Return the forward functions of the contestants by name."""
    groups = (TokenGroup(n, math.sqrt(n)),)
    compiled = partial(torch.compile, dynamic=False) if settings.on_cuda else lambda function: function
    return {
        OURS: compiled(lambda x, k, v: pattentions(x, [(k, v)], groups, "l2_norm_gelu").squeeze(-2)),
        "recomputing": compiled(
            lambda x, k, v: pattentions(x, [(k, v)], groups, "l2_norm_gelu", recompute=True).squeeze(-2)
        ),
        "plain": lambda x, k, v: plain_pattention(x, k, v, groups, "l2_norm_gelu"),
        OFFICIAL: lambda x, k, v: official(x, k, v, groups),
        "MLP": compiled(lambda x, k, v: F.linear(F.gelu(F.linear(x, k)), v.T)),
    }


def make_operands(settings: Settings, n: int, tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return random x, keys, values and output gradient. Weights are float32; activations have the precision of
    training."""
    device = settings.device
    x = torch.randn(tokens, WIDTH, device=device, dtype=settings.dtype).requires_grad_()
    keys, values = ((0.02 * torch.randn(n, WIDTH, device=device)).requires_grad_() for _ in range(2))
    return x, keys, values, torch.randn(tokens, WIDTH, device=device, dtype=settings.dtype)


def run_both_passes(
    settings: Settings, forward: Forward, x: Tensor, keys: Tensor, values: Tensor, gradient: Tensor
) -> None:
    """Compute a forward and a backward pass."""
    with settings.autocast():
        out = forward(x, keys, values)
    torch.autograd.grad(out, (x, keys, values), gradient)


def _memory(settings: Settings, n: int, tokens: int, name: str) -> dict[str, float]:
    if settings.on_cuda:
        return {"peak_bytes": measure_memory(settings, n, tokens, name)}
    return {"peak_bytes": run_apart(measure_memory, settings, n, tokens, name)} if KNOWN else {}


def measure_memory(settings: Settings, n: int, tokens: int, name: str) -> int:
    """Return the peak memory of both passes in bytes, without the gradients of the weights. The peak is that of this
    process on the CPU, and that of the CUDA allocator on CUDA."""
    settings.apply()
    x, keys, values, gradient = make_operands(settings, n, tokens)
    forward = make_implementations(settings, n)[name]
    run = partial(run_both_passes, settings, forward, x, keys, values, gradient)
    peak = _peak_on_cuda(run) if settings.on_cuda else measure_peak(run, run)
    return peak - keys.nbytes - values.nbytes


def _peak_on_cuda(run: Callable[[], object]) -> int:
    run()  # compiles
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() - before
