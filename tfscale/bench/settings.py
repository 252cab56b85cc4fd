"""Settings of a benchmark, with methods that apply them to this process."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import torch

from tfscale.host import cores

TURN_SECONDS = 0.5
"""Minimum time of a turn in seconds. The first run of a turn is slow, because the previous contestant has replaced the
contents of the caches."""


@dataclass(frozen=True)
class Settings:
    """Settings shared by all parts of a benchmark."""

    device: Literal["cpu", "cuda"]
    quick: bool
    """True to use small sizes and few rounds, which is enough to test that the benchmark runs."""
    threads: int
    case: str = ""
    """Text that selects the cases to measure. A case is measured if its name contains the text, in any capitalization.
    An empty text selects all cases."""

    @property
    def on_cuda(self) -> bool:
        """True if the device is a GPU."""
        return self.device == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """Data type of matrix products in training: bf16 on CUDA and float32 on a CPU."""
        return torch.bfloat16 if self.on_cuda else torch.float32

    def wants(self, case: str) -> bool:
        """Return True if the case with the name `case` is to be measured."""
        return self.case.lower() in case.lower()

    def apply(self) -> None:
        """Set the number of threads and the precision of matrix products of this process as in training, and set the
        random seed of torch to 0."""
        torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        if self.on_cuda:
            torch.set_float32_matmul_precision("high")

    def forget_compiled(self) -> None:
        """Discard compiled code on CUDA, so that no case is compiled for symbolic shapes, which are slower."""
        if self.on_cuda:
            torch.compiler.reset()

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context manager that runs forward passes in the precision of training."""
        return torch.autocast("cuda", torch.bfloat16) if self.on_cuda else contextlib.nullcontext()

    def time(self, run: Callable[[], object], at_least: float = 0.0) -> float:
        """Call a function repeatedly for at least `at_least` seconds, and at least once. Return the mean seconds per
        call, including the work on the device."""
        started, runs = perf_counter(), 0
        while runs == 0 or perf_counter() - started < at_least:
            run()
            if self.on_cuda:
                torch.cuda.synchronize()
            runs += 1
        return (perf_counter() - started) / runs

    def take_turn(self, run: Callable[[], object]) -> float:
        """Call a function repeatedly for one turn, or once with `quick`, and return the mean seconds per call."""
        return self.time(run, 0.0 if self.quick else TURN_SECONDS)


def resolve_settings(device: Literal["auto", "cpu", "cuda"], quick: bool, threads: int, case: str = "") -> Settings:
    """Return the settings for command-line options. With `device="auto"`, the device is CUDA if a CUDA device is
    available, and otherwise the CPU. With `threads=0`, there is one thread per core. Raise ValueError if the device is
    `cuda` and no CUDA device is available."""
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("--device=cuda: must be auto or cpu, because torch finds no CUDA device")
    if device == "auto":
        device = "cuda" if available else "cpu"
    return Settings(device, quick, threads or cores(), case)
