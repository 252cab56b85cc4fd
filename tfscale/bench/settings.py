"""How a benchmark is run."""

import contextlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Literal

import torch


@dataclass(frozen=True)
class Settings:
    """The same for every part."""

    device: Literal["cpu", "cuda"]
    quick: bool
    """Small sizes and few rounds: shows that everything works, and measures nothing worth keeping."""
    threads: int
    """Of the CPU."""
    case: str = ""
    """Only cases whose names contain this."""

    def wants(self, case: str) -> bool:
        """Whether a case is to be measured."""
        return self.case.lower() in case.lower()

    def apply(self) -> None:
        """Sets this process up as a stage of training is."""
        torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        if self.device == "cuda":
            torch.set_float32_matmul_precision("high")

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of forward passes, as in training: bf16 on CUDA, float32 on the CPU."""
        return torch.autocast("cuda", torch.bfloat16) if self.device == "cuda" else contextlib.nullcontext()

    def finish(self) -> None:
        """Returns when the device has done all that it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()


def settings_of(device: Literal["auto", "cpu", "cuda"], quick: bool, threads: int, case: str = "") -> Settings:
    """Settings with `auto` and 0 resolved.

    Raises:
        ValueError: cuda is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ValueError("--device cuda, but torch finds no CUDA device; use auto or cpu")
    found: Literal["cpu", "cuda"] = "cuda" if there else "cpu"
    return Settings(found if device == "auto" else device, quick, threads or len(os.sched_getaffinity(0)), case)


def alternate(
    runs: Mapping[str, Callable[[], object]], seconds: float, least: int, settings: Settings, warm_up: int = 1
) -> dict[str, tuple[float, ...]]:
    """Seconds of each run in every round, for about `seconds` and at least `least` rounds.

    A round is each of them once, in turn and every other time in the opposite order: what else the machine does falls
    on all alike.
    """
    return take_turns({name: partial(timed, run, settings) for name, run in runs.items()}, seconds, least, warm_up)


def timed(run: Callable[[], object], settings: Settings) -> float:
    """The seconds of a run."""
    started = perf_counter()
    run()
    settings.finish()
    return perf_counter() - started


def take_turns(
    turns: Mapping[str, Callable[[], float]], seconds: float, least: int, warm_up: int = 1
) -> dict[str, tuple[float, ...]]:
    """As `alternate`, for what measures its seconds itself."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    for turn in turns.values():
        for _ in range(warm_up):
            turn()
    until, rounds, order = perf_counter() + seconds, 0, list(turns)
    while perf_counter() < until or rounds < least:
        for name in order:
            found[name].append(turns[name]())
        order.reverse()
        rounds += 1
    return {name: tuple(times) for name, times in found.items()}
