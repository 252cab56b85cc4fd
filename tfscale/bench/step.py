"""Benchmark of a training step of a whole model with AdamW and with Muon.

A step consists of the loss, the backward pass, gradient clipping and the update for one batch. On a CPU the models take
turns; on CUDA they are measured one after the other, compiled and in bf16. The share of the peak is based on the model
FLOPs of `tfscale.models.counts`, with full attention and without recomputation.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch

from tfscale.bench.apart import KNOWN, measure_peak, run_apart
from tfscale.bench.contest import Contestant, measure_case
from tfscale.bench.rows import Found, Note
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import ON_CPU, ON_CUDA, PROGRESSIVE_1, Size
from tfscale.bench.trained import OURS, OURS_MUON, TRANSFORMER, TRANSFORMER_MUON, Entry, TrainedModel
from tfscale.models.counts import parameters

PART = "step"
ENTRIES = (OURS, TRANSFORMER, OURS_MUON, TRANSFORMER_MUON)
Start = Callable[[Entry, Size, Settings], Contestant]


def start(entry: Entry, size: Size, settings: Settings) -> Contestant:
    """Build a model, run one training step, which compiles the model and allocates all state, and return a contestant
    that runs further training steps."""
    model = entry.build(size, settings)
    model.step()
    return Contestant(
        entry.name,
        turn=partial(settings.take_turn, model.step),
        flops=entry.step_flops(size),
        tokens=size.tokens,
        figures=partial(_figures, entry, size, settings, model),
    )


def measure(settings: Settings, entries: Sequence[Entry] = ENTRIES, start: Start = start) -> Iterator[Found]:
    """Yield measurements of training steps for each model size that is measured on the device and that `settings.case`
    selects. Contestants for which `start` raises ImportError or torch.OutOfMemoryError are skipped with a note."""
    for size in ON_CUDA if settings.on_cuda else ON_CPU:
        if settings.wants(size.name):
            its = replace(settings, threads=size.threads or settings.threads)
            its.apply()
            for group in [(entry,) for entry in entries] if its.on_cuda else [entries]:
                yield from _measure_group(its, size, group, start)
                gc.collect()
                torch.cuda.empty_cache()


def _measure_group(settings: Settings, size: Size, entries: Sequence[Entry], start: Start) -> Iterator[Found]:
    settings.forget_compiled()
    ready = []
    for entry in entries:
        try:
            ready.append(start(entry, size, settings))
        except ImportError as error:
            yield Note(PART, f"{size.name}, {entry.name}: {error.name} is not installed")
        except torch.OutOfMemoryError:
            yield Note(PART, f"{size.name}, {entry.name}: the model does not fit into the device's memory")
    yield from measure_case(PART, size.name, ready, settings, seconds=20.0, least=5)


def _figures(entry: Entry, size: Size, settings: Settings, model: TrainedModel) -> dict[str, float]:
    count = {"parameters": parameters(entry.config(size)), "update_share": model.measure_update_share()}
    if not settings.on_cuda:
        return {**count, **measure_memory_apart(entry, size, settings)}
    torch.cuda.reset_peak_memory_stats()
    model.step()
    return {**count, "peak_bytes": torch.cuda.max_memory_allocated()}


def measure_memory_apart(entry: Entry, size: Size, settings: Settings) -> dict[str, float]:
    """Measure the peak memory of training steps on the CPU in a separate process, and return it in bytes as the figure
    `peak_bytes`. The dictionary is empty if the peak memory cannot be measured on this system."""
    return {"peak_bytes": run_apart(measure_step_peak, entry, size, settings)} if KNOWN else {}


def measure_step_peak(entry: Entry, size: Size, settings: Settings) -> int:
    """Return the peak memory in bytes of building a model and running two training steps, of which the first allocates
    the optimizer state."""
    settings.apply()

    def train() -> None:
        model = entry.build(size, settings)
        model.step()
        model.step()

    return measure_peak(train, lambda: entry.build(PROGRESSIVE_1, settings).step())
