"""Settings and helper functions for the parts of `benchmarks/cuda_check.py`."""

import contextlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from benchmarks.cuda import compiler
from benchmarks.cuda.findings import NotMeasured, Recorder
from tfscale.bench.settings import Settings, resolve_settings
from tfscale.doctor.agreement import PEAK_SHARE
from tfscale.models.language_model import LanguageModel

ROOT = Path(__file__).resolve().parents[2]
"""Root folder of the checkout."""
MOST_ROUNDS = 400
LEAST_BF16_ERROR = 1e-4
"""Relative error below which gradients cannot have been computed in bf16."""
ROUND_SECONDS = 5e-3
"""Minimum duration of a timed round. Shorter work is repeated, because otherwise the wait for the device would dominate
the measured time."""


@dataclass(frozen=True)
class Check:
    """Settings and recorder of one part of the check."""

    out: Path
    record: Recorder
    device: Literal["cpu", "cuda"]
    tiny: bool
    """True for the smallest sizes, which test that every part works. The figures are then not meaningful."""
    files: Path = Path()
    """Folder written by `prepare`."""
    limit: float = math.inf
    """Time limit of the part, in seconds."""

    @property
    def on_cuda(self) -> bool:
        """True if the device is a GPU."""
        return self.device == "cuda"

    @property
    def settings(self) -> Settings:
        """Settings for the functions of `tfscale.bench`."""
        return resolve_settings(self.device, self.tiny, self.threads)

    @property
    def threads(self) -> int:
        """Number of CPU threads, where 0 means one per core. Tiny operations are slower with several threads."""
        return 1 if self.tiny else 0

    def compile_parts(self, model: LanguageModel) -> None:
        """Compile a model on CUDA, as in training. On the CPU the model stays eager, because compiling takes minutes
        there and is not part of the check."""
        if self.on_cuda:
            model.compile_parts()

    def confirm(self, compiled: bool, bf16: bool, error: float) -> None:
        """Check that the computation since `reset` was compiled or eager as stated by `compiled`, and in bf16 if `bf16`
        is True.

        Args:
            error: relative error of the gradients, which cannot be very small in bf16.

        Raises:
            NotMeasured: the computation differed from the arguments.
        """
        if self.on_cuda:
            compiler.confirm(compiled)
        if bf16 and error < LEAST_BF16_ERROR:
            raise NotMeasured(f"a gradient error of {error:.1g} is too small for bf16: autocast was not active")

    def autocast(self, bf16: bool) -> AbstractContextManager[Any]:
        """Return a context manager for bf16 autocast on the device, or one without effect if `bf16` is False."""
        return torch.autocast(self.device, torch.bfloat16) if bf16 else contextlib.nullcontext()

    def seconds(
        self, run: Callable[[], object], at_least: int = 8, for_seconds: float = 0.25, warm_up: int = 2
    ) -> float:
        """Return the median time of a call of `run`, in seconds, including the work of the device."""
        settings = self.settings
        rounds, total = (1, 0.0) if self.tiny else (at_least, for_seconds)
        for _ in range(1 if self.tiny else warm_up):
            run()
        if self.on_cuda:
            torch.cuda.synchronize()
        repeats = 1 if self.tiny else math.ceil(ROUND_SECONDS / settings.time(run))

        def repeat() -> None:
            for _ in range(repeats):
                run()

        times: list[float] = []
        while len(times) < rounds or (sum(times) < total and len(times) < MOST_ROUNDS):
            times.append(settings.time(repeat))
        return median(times) / repeats

    def reset(self) -> None:
        """Delete compiled code, and reset the memory allocator and its statistics.

        Without compiled code for other shapes, torch.compile keeps all shapes static, as in training.
        """
        if self.on_cuda:
            compiler.reset()
            torch.cuda.empty_cache()
            self.reset_peak()

    def reset_peak(self) -> None:
        """Reset the peak memory that `peak` returns."""
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int | None:
        """Return the peak memory in bytes since `reset_peak`, or None on the CPU."""
        return torch.cuda.max_memory_allocated() if self.on_cuda else None

    def bound_peak(self, name: str, peak: int | None, planned: int) -> None:
        """Record the relative difference between the measured and the planned peak memory, with its bound. If `peak` is
        None, as on the CPU, record that the peak was not measured."""
        if peak is None:
            self.record.measured(
                f"{name}: peak memory", {"not_measured": "the allocator of the CPU does not report it"}
            )
        else:
            self.record.bounded(f"{name}: peak memory off the plan's, as a share", abs(peak / planned - 1), PEAK_SHARE)
