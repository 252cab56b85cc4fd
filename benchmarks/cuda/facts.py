"""Part `facts`, which records versions and measures the speed of torch operations at the shapes of the models."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.cuda.check import Check
from benchmarks.cuda.findings import MACHINE
from tfscale.training.costs import EnergyMeter
from tfscale.training.device import Device, environment

WIDTH = 768
ROWS = (576, 2140, 2144, 2176, 8560, 4850, 4864, 8620, 8640, 34480)
"""Numbers of parameter tokens in the published chain. An unaligned number is followed by similar aligned numbers."""
BACKENDS = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
ENERGY_READINGS = 50


def facts(check: Check) -> None:
    """Record versions and measure matrix products, copies, the energy counter and attention."""
    check.record.measured(MACHINE, _machine(check))
    attempt = check.record.attempt
    side, tokens = (128, 16) if check.tiny else (8192, 16384)
    attempt(f"bf16 matrix product, side {side}", partial(_product, check, side, side, side))
    torch.set_float32_matmul_precision("highest")
    attempt("fp32 matrix product, side 1024", partial(_product, check, 1024, 1024, 1024, torch.float32))
    for n in ROWS[:2] if check.tiny else ROWS:
        attempt(f"x keys^T, n={n}", partial(_product, check, tokens, n, WIDTH))
        attempt(f"weights values, n={n}", partial(_product, check, tokens, WIDTH, n))
        attempt(f"d_scores^T x, n={n}", partial(_transposed_product, check, tokens, n))
    attempt("copies", partial(_copies, check))
    attempt("energy counter", partial(_energy, check))
    attempt("attention", partial(_attention, check))


def _machine(check: Check) -> Mapping[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if check.on_cuda else "cpu",
        "sizes": "tiny" if check.tiny else "full",
        "commit": environment(Device(check.device, bf16=True, compiled=True)).commit,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if check.on_cuda else None,
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "free_bytes": torch.cuda.mem_get_info()[0] if check.on_cuda else None,
    }


def _product(check: Check, m: int, n: int, k: int, dtype: torch.dtype = torch.bfloat16) -> Mapping[str, Any]:
    a, b = (torch.randn(rows, k, device=check.device, dtype=dtype) for rows in (m, n))
    return {"tflops": 2 * m * n * k / check.seconds(lambda: a @ b.T, for_seconds=0.15) / 1e12}


def _transposed_product(check: Check, tokens: int, n: int) -> Mapping[str, Any]:
    a, b = (torch.randn(tokens, width, device=check.device, dtype=torch.bfloat16) for width in (n, WIDTH))
    return {"tflops": 2 * tokens * n * WIDTH / check.seconds(lambda: a.T @ b, for_seconds=0.15) / 1e12}


def _copies(check: Check) -> Mapping[str, Any]:
    """Measure copies within the device and between device and host, in gigabytes per second."""
    size = 2**20 if check.tiny else 2**28
    on_device, other = (torch.empty(size, dtype=torch.uint8, device=check.device) for _ in range(2))
    pageable, pinned = (torch.empty(size, dtype=torch.uint8, pin_memory=pin and check.on_cuda) for pin in (False, True))
    runs: dict[str, Callable[[], object]] = {
        "device_to_device": lambda: other.copy_(on_device),
        "pageable_to_device": lambda: on_device.copy_(pageable),
        "pinned_to_device": lambda: on_device.copy_(pinned, non_blocking=True),
        "device_to_new_pageable": lambda: on_device.to("cpu", copy=True),
        "device_to_pinned": lambda: pinned.copy_(on_device),
    }
    return {name: size / check.seconds(run, 3, 0.2, 1) / 1e9 for name, run in runs.items()}


def _energy(check: Check) -> Mapping[str, Any]:
    meter = EnergyMeter(Device(check.device, bf16=True, compiled=True))
    started = perf_counter()
    joules = [meter.joules() for _ in range(ENERGY_READINGS)]
    microseconds = (perf_counter() - started) / ENERGY_READINGS * 1e6
    return {"works": meter.works, "microseconds_per_reading": microseconds, "joules": joules[-1] - joules[0]}


def _attention(check: Check) -> Mapping[str, Any]:
    """Measure a forward and backward pass of each attention backend, in milliseconds, and check whether two passes
    give bit-equal results."""
    shape = (2, 64, 4, 32) if check.tiny else (8, 1024, 12, 64)
    inputs = [torch.randn(shape, device=check.device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]

    def run() -> tuple[Tensor, ...]:
        q, k, v = (each.transpose(1, 2) for each in inputs)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return torch.autograd.grad(out, inputs, torch.ones_like(out))

    found: dict[str, Any] = {"default_ms": 1e3 * check.seconds(run), "default_repeats_bits": _repeats(run)}
    for backend in BACKENDS:
        try:
            with sdpa_kernel(backend):
                found[f"{backend.name.lower()}_ms"] = 1e3 * check.seconds(run)
        except RuntimeError as error:
            found[f"{backend.name.lower()}_ms"] = f"refused: {str(error)[:80]}"
    with _deterministic():
        return {**found, "deterministic_ms": 1e3 * check.seconds(run), "deterministic_repeats_bits": _repeats(run)}


def _repeats(run: Callable[[], tuple[Tensor, ...]]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


@contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
