"""The settings of a check, and what its parts share."""

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
from benchmarks.cuda.failures import NotMeasured
from benchmarks.cuda.findings import Recorder
from tfscale.bench.settings import Settings, resolve_settings
from tfscale.models.language_model import LanguageModel

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
MOST_ROUNDS = 400
LEAST_BF16_ERROR = 1e-4
"""Relative error of gradients that rounding to bf16 cannot stay below."""
ROUND_SECONDS = 5e-3
"""A round repeats shorter work for so long, or waiting for the device would be what is timed."""


@dataclass(frozen=True)
class Check:
    """The settings and the recorder of one part."""

    out: Path
    record: Recorder
    device: Literal["cpu", "cuda"]
    tiny: bool
    """Smallest sizes: shows that everything runs, and measures nothing worth keeping."""
    files: Path = Path()
    """The folder that `prepare` made."""
    limit: float = math.inf
    """The time after which the part is cut off."""

    @property
    def on_cuda(self) -> bool:
        """True on a GPU, whose allocator reports how much memory a step has taken."""
        return self.device == "cuda"

    @property
    def settings(self) -> Settings:
        """The settings for functions of `tfscale.bench`."""
        return resolve_settings(self.device, self.tiny, self.threads)

    @property
    def threads(self) -> int:
        """CPU threads; 0: one per core. Tiny operations are only slower on several."""
        return 1 if self.tiny else 0

    def compile_parts(self, model: LanguageModel) -> None:
        """Compiles a model as training does on CUDA. On the CPU it stays eager, for a compiler there takes minutes and
        is not what is checked."""
        if self.on_cuda:
            model.compile_parts()

    def confirm(self, compiled: bool, bf16: bool, error: float) -> None:
        """Make sure that work since `fresh` was compiled or eager, and in bf16, as it was meant to be.

        Args:
            error: of the gradients; in bf16 it cannot be small.

        Raises:
            NotMeasured: it was not.
        """
        if self.on_cuda:
            compiler.confirm(compiled)
        if bf16 and error < LEAST_BF16_ERROR:
            raise NotMeasured(f"gradients are only {error:.1g} off: autocast to bf16 was not on")

    def autocast(self, bf16: bool) -> AbstractContextManager[Any]:
        """bf16 autocast on the device, or none."""
        return torch.autocast(self.device, torch.bfloat16) if bf16 else contextlib.nullcontext()

    def seconds(
        self, run: Callable[[], object], at_least: int = 8, for_seconds: float = 0.25, warm_up: int = 2
    ) -> float:
        """The median time of a run, the device's work included."""
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

    def fresh(self) -> None:
        """Forgets what has been compiled, so that no shape becomes symbolic because another came before it, which does
        not happen in training either; and what the allocator has seen."""
        if self.on_cuda:
            compiler.forget()
            torch.cuda.empty_cache()
            self.reset_peak()

    def reset_peak(self) -> None:
        """Has `peak` count from now on."""
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int | None:
        """Most bytes that the allocator has handed out since its statistics were reset; None on the CPU."""
        return torch.cuda.max_memory_allocated() if self.on_cuda else None
