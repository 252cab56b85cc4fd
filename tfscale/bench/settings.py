"""Benchmark settings."""

import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import torch

TURN_SECONDS = 0.5
"""The least time of a turn. In its first run a contestant finds the caches filled by the others."""


@dataclass(frozen=True)
class Settings:
    """Settings that all parts share."""

    device: Literal["cpu", "cuda"]
    quick: bool
    """Use small sizes and few rounds: this shows that everything works, but the figures mean nothing."""
    threads: int
    """CPU threads."""
    case: str = ""
    """Measure only cases whose names contain this."""

    @property
    def on_cuda(self) -> bool:
        """True if the device is a GPU."""
        return self.device == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """The precision of matrix products in training: bf16 on CUDA, float32 on the CPU."""
        return torch.bfloat16 if self.on_cuda else torch.float32

    def wants(self, case: str) -> bool:
        """Return whether a case is to be measured."""
        return self.case.lower() in case.lower()

    def apply(self) -> None:
        """Set this process up as a training process is."""
        torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        if self.on_cuda:
            torch.set_float32_matmul_precision("high")

    def autocast(self) -> AbstractContextManager[Any]:
        """Run forward passes in the precision of training."""
        return torch.autocast("cuda", torch.bfloat16) if self.on_cuda else contextlib.nullcontext()

    def time(self, run: Callable[[], object], at_least: float = 0.0) -> float:
        """Run a function for so many seconds, at least once, and return the seconds per run. The device's work is
        included."""
        started, runs = perf_counter(), 0
        while runs == 0 or perf_counter() - started < at_least:
            run()
            if self.on_cuda:
                torch.cuda.synchronize()
            runs += 1
        return (perf_counter() - started) / runs

    def take_turn(self, run: Callable[[], object]) -> float:
        """Run a function for the time of a turn and return the seconds per run."""
        return self.time(run, 0.0 if self.quick else TURN_SECONDS)


def resolve_settings(device: Literal["auto", "cpu", "cuda"], quick: bool, threads: int, case: str = "") -> Settings:
    """Make settings from options; `auto` chooses CUDA if there is a device, and 0 threads means one per core.

    Raises:
        ValueError: cuda is asked for, but there is no device.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("--device cuda, but torch finds no CUDA device; use auto or cpu")
    if device == "auto":
        device = "cuda" if available else "cpu"
    return Settings(device, quick, threads or len(os.sched_getaffinity(0)), case)
