"""Pattention, forward and backward, side by side at the published shapes (d = 768): time and memory.

    python benchmarks/pattention.py [--tokens 1024] [--seconds 20] [--threads 2] [--out pattention.json]

Each round runs every implementation once, in turn, so that what else the machine does falls on all alike. The table
gives medians, the quartiles around them, and how much longer each takes than its six matrix products alone.

ours         what the models use
remade       the same with recompute=pattention: scores are made again in the backward pass
plain        the definition with autograd's backward pass
official     the order of operations of the official GPU code: scores times a matrix of ones, over their norm, times
             sqrt(n), GELU, dropout of nothing
mlp          a GELU network of equal size, of linear layers without biases
products     the six matrix products that all of them have to make

Memory is measured apart, in a process for each: what is `kept` from the forward pass to the backward one, and the
`peak` of both together, gradients of the weights left out.

On a machine that does other things too, `--processor-time` counts the seconds that one thread was computing.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor
from torch.nn import functional as F

from tfscale.models.config import TokenGroup
from tfscale.models.pattention import pattention, plain_pattention

WIDTH = 768
SHAPES = (576, 2140, 8620, 8560, 34480)
Forward = Callable[[Tensor, Tensor, Tensor], Tensor]
Clock = Callable[[], float]


def implementations(n: int) -> dict[str, Forward]:
    """Functions of (x, keys, values)."""
    groups = (TokenGroup(n, math.sqrt(n)),)
    return {
        "ours": lambda x, k, v: pattention(x, k, v, groups, "l2_norm_gelu"),
        "remade": lambda x, k, v: pattention(x, k, v, groups, "l2_norm_gelu", recompute=True),
        "plain": lambda x, k, v: plain_pattention(x, k, v, groups, "l2_norm_gelu"),
        "official": official,
        "mlp": lambda x, k, v: F.linear(F.gelu(F.linear(x, k)), v.T),
    }


def official(x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Written anew; what is done, and in which order, is the official code's."""
    scale = 1
    ones = torch.ones(len(x), len(keys), dtype=x.dtype)
    scores = x @ keys.T * scale
    scores *= ones
    normed = scores / torch.norm(scores, p=2, dim=-1, keepdim=True) * math.sqrt(len(keys))
    weights = torch.dropout(F.gelu(normed), 0.0, train=True)
    return weights @ values


def products(x: Tensor, keys: Tensor, values: Tensor, gradient: Tensor) -> None:
    """The two products of a forward pass and the four of a backward one."""
    scores = x @ keys.T
    _ = scores @ values, gradient @ values.T, scores.T @ gradient, scores @ keys, scores.T @ x


def operands(tokens: int, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, keys, values and the gradient of the output."""
    torch.manual_seed(0)
    x, keys, values = torch.randn(tokens, WIDTH), 0.02 * torch.randn(n, WIDTH), 0.02 * torch.randn(n, WIDTH)
    return x.requires_grad_(), keys.requires_grad_(), values.requires_grad_(), torch.randn(tokens, WIDTH)


def both_passes(forward: Forward, x: Tensor, keys: Tensor, values: Tensor, gradient: Tensor) -> None:
    """Forward and backward."""
    torch.autograd.grad(forward(x, keys, values), (x, keys, values), gradient)


def times(tokens: int, n: int, seconds: float, clock: Clock) -> dict[str, list[float]]:
    """Seconds of each implementation in every round, for about `seconds` and at least three rounds."""
    given = operands(tokens, n)
    detached = tuple(each.detach() for each in given)
    runs: dict[str, Callable[[], None]] = {
        name: lambda forward=forward: both_passes(forward, *given)  # type: ignore[misc]
        for name, forward in implementations(n).items()
    }
    runs["products"] = lambda: products(*detached)
    found: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(found["products"]) < 3:
        for name, run in runs.items():
            started = clock()
            run()
            found[name].append(clock() - started)
    return found


def memory(tokens: int, n: int, name: str) -> tuple[int, int]:
    """Bytes kept after the forward pass, and at the peak, of a process of its own."""
    command = [sys.executable, __file__, "--tokens", str(tokens), "--memory", f"{n},{name}"]
    # A mapping for each large allocation: what is freed is then free.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()
    return int(found[0]), int(found[1])


def memory_here(tokens: int, n: int, name: str) -> tuple[int, int]:
    """The same, of this process (Linux)."""
    forward, (x, keys, values, gradient) = implementations(n)[name], operands(tokens, n)
    both_passes(forward, x, keys, values, gradient)  # the matrix products' own buffers stay
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    out = forward(x, keys, values)
    kept = _status("VmRSS") - before
    torch.autograd.grad(out, (x, keys, values), gradient)
    return kept, _status("VmHWM") - before - keys.nbytes - values.nbytes


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=20, help="of each shape, at least three rounds")
    parser.add_argument("--shapes", type=int, nargs="*", default=SHAPES, help="numbers of parameter tokens")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processor-time", action="store_true", help="of one thread, instead of wall time")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.memory:
        n, name = asked.memory.split(",")
        print(*memory_here(asked.tokens, int(n), name))
        return
    clock = time.thread_time if asked.processor_time else time.perf_counter
    threads = 1 if asked.processor_time else asked.threads
    torch.set_num_threads(threads)
    report = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "threads": threads,
        "clock": clock.__name__,
        "torch": torch.__version__,
        "tokens": asked.tokens,
        "shapes": [shape(asked.tokens, n, asked.seconds, clock) for n in asked.shapes],
    }
    if asked.out:
        asked.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def shape(tokens: int, n: int, seconds: float, clock: Clock) -> dict[str, object]:
    """Measures one shape and prints its part of the table."""
    found = times(tokens, n, seconds, clock)
    bare = median(found["products"])
    rate = 12 * tokens * n * WIDTH / bare
    print(f"\nn = {n}, {tokens} tokens, {len(found['products'])} rounds; products at {rate / 1e9:.0f} GFLOP/s")
    print(f"{'':10}{'ms':>9}{'quartiles':>19}{'/ products':>12}{'kept MB':>10}{'peak MB':>10}")
    rows = {}
    for name, seconds_ in found.items():
        low, middle, high = quantiles(seconds_, n=4)
        kept, peak = memory(tokens, n, name) if name != "products" else (0, 0)
        rows[name] = {"median": middle, "quartiles": [low, high], "kept": kept, "peak": peak, "rounds": seconds_}
        spread = f"{1e3 * low:.1f} .. {1e3 * high:.1f}"
        sizes = f"{kept / 1e6:10.1f}{peak / 1e6:10.1f}" if peak else ""
        print(f"{name:10}{1e3 * middle:9.1f}{spread:>19}{middle / bare:12.3f}{sizes}", flush=True)
    return {"n": n, "flops": 12 * tokens * n * WIDTH, "flops_per_second": rate, "implementations": rows}


if __name__ == "__main__":
    main()
