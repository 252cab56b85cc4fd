"""A training step of the whole model: tokens a second, share of the matrix-multiply peak, memory.

Loss, backward pass, clipping and update of one batch, of the contestants in `tfscale.bench.contestants`; on CUDA in
bf16, with ours, the Transformer and GPT-2 compiled. On the CPU each contestant is a process of its own, with its users'
environment (`tfscale.bench.elsewhere`). The share of the peak counts the model's FLOPs as
`tfscale.models.counts` does: attention in full, nothing for what is made again.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from tfscale.bench import gemm
from tfscale.bench.apart import KNOWN, apart, exact_memory, peak_above
from tfscale.bench.contestants import (
    CONTESTANTS,
    GPT2,
    OFFICIAL,
    OURS,
    PLAIN,
    TRANSFORMER,
    Contestant,
    NotInstalled,
    config_of,
    contestant,
    step_flops,
)
from tfscale.bench.elsewhere import Elsewhere, elsewhere
from tfscale.bench.rows import Found, Note, Row, Rows, Verdict
from tfscale.bench.settings import Settings, take_turns, timed
from tfscale.bench.sizes import ON_CPU, ON_CUDA, TINY_1, TINY_4, Size
from tfscale.models.counts import parameters
from tfscale.training.device import Device, free_memory

PART = "step"
HELD = 4 * 4
"""Bytes a parameter in training: weight, gradient, two moments."""
H100_PEAK = 989.4e12
"""Dense bf16 FLOPs a second in the data sheet, which published shares count from."""


def measure(settings: Settings) -> Iterator[Found]:
    """All sizes of the device."""
    for size in ON_CUDA if settings.device == "cuda" else ON_CPU:
        if settings.wants(size.name):
            yield from _size(settings if size.threads is None else replace(settings, threads=size.threads), size)


def _size(settings: Settings, size: Size) -> Iterator[Found]:
    settings.apply()
    together = _fit_together(settings, size)
    if not together:
        yield Note(PART, f"{size.name}: one contestant after the other; memory does not hold all at once")
    for names in [CONTESTANTS] if together else [(name,) for name in CONTESTANTS]:
        yield from _measured(settings, size, names)
        gc.collect()
        torch.cuda.empty_cache()


def _fit_together(settings: Settings, size: Size) -> bool:
    free = free_memory(Device(settings.device, bf16=False, compiled=False), 1)
    return 1.5 * HELD * sum(parameters(config_of(name, size)) for name in CONTESTANTS) < free


def _measured(settings: Settings, size: Size, names: Sequence[str]) -> Iterator[Found]:
    there: dict[str, Contestant | Elsewhere] = {}
    for name in names:
        try:
            there[name] = _ready(name, size, settings)
        except NotInstalled as error:
            yield Note(PART, str(error))
        except torch.OutOfMemoryError:
            yield Note(PART, f"{size.name}, {name}: does not fit into the device's memory")
    turns = {name: _turn(made, settings) for name, made in there.items()}
    turns[gemm.NAME] = partial(timed, gemm.matrix_product(settings), settings)
    found = take_turns(turns, *((0.0, 2) if settings.quick else (20.0, 5)))
    peak = gemm.rate(settings, found)
    for made in there.values():
        if isinstance(made, Elsewhere):
            made.leave()  # for the memory of each is measured in one process more
    for name, made in there.items():
        each = median(found[name])
        figures = {
            "tokens_per_second": size.tokens / each,
            "share_of_peak": step_flops(name, size) / each / peak,
            "parameters": made.parameters,
            **_memory(settings, size, name, made),
        }
        yield Row(PART, size.name, name, found[name], figures)
    yield Row(PART, size.name, gemm.NAME, found[gemm.NAME], {"tflops": peak / 1e12})


def _ready(name: str, size: Size, settings: Settings) -> Contestant | Elsewhere:
    """A contestant that is compiled and has its moments; nothing of one that does not fit is left. On the CPU it has a
    process of its own, whose environment counts; of a GPU the processes would take each other's memory."""
    if settings.device == "cpu":
        return elsewhere(name, size, settings)
    made = contestant(name, size, settings)
    made.step()
    return made


def _turn(made: Contestant | Elsewhere, settings: Settings) -> Callable[[], float]:
    return made.turn if isinstance(made, Elsewhere) else partial(timed, made.step, settings)


def _memory(settings: Settings, size: Size, name: str, made: Contestant | Elsewhere) -> dict[str, float]:
    if isinstance(made, Contestant):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        made.step()
        return {"peak_bytes": torch.cuda.max_memory_allocated() - before + made.held}
    return {"peak_bytes": apart(peak_of_step, settings, size, name)} if KNOWN else {}


def peak_of_step(settings: Settings, size: Size, name: str) -> int:
    """Largest resident bytes of this process in its second step, when the moments are there, above those of one that
    has trained a tiny model."""
    settings.apply()
    exact_memory()
    tiny = replace(size, sequences=1, time=8)
    small = replace(
        tiny,
        tokenformer=replace(size.tokenformer, n_layer=1, vocab_size=257),
        transformer=replace(size.transformer, n_layer=1, vocab_size=257),
    )
    contestant(name, small, settings).step()
    gc.collect()

    def train() -> None:
        made = contestant(name, size, settings)
        made.step()
        made.step()

    return peak_above(train)


def verdicts(rows: Rows, settings: Settings) -> Iterator[Verdict]:
    """Ours against the others, and against the machine."""
    return _on_cuda(rows) if settings.device == "cuda" else _on_cpu(rows)


def _on_cpu(rows: Rows) -> Iterator[Verdict]:
    for size in (TINY_1, TINY_4):
        if pair := rows.both(PART, size.name, PLAIN, OURS):
            yield Verdict(PART, f"{size.name}: speed over plain eager", pair[0].median / pair[1].median, 1.5, True)
    if ours := rows.get(PART, "124M", OURS):
        yield Verdict(PART, "124M: share of the matrix-multiply peak", ours.figures["share_of_peak"], 0.8, True)
    for other in (TRANSFORMER, GPT2):
        if pair := rows.both(PART, "124M", OURS, other):
            yield Verdict(PART, f"124M: tokens/s over {other}'s", _speed(*pair), 1.0, True)
    yield from _memories(rows, "124M")


def _on_cuda(rows: Rows) -> Iterator[Verdict]:
    for case, target in (("124M", 0.40), ("1.4B", 0.48)):
        pair = rows.both(PART, case, TRANSFORMER, gemm.NAME)
        if pair and "H100" in torch.cuda.get_device_name():
            share = pair[0].figures["share_of_peak"] * pair[1].figures["tflops"] * 1e12 / H100_PEAK
            yield Verdict(PART, f"{case}: Transformer's MFU of the H100's data sheet", share, target, True)
    for size in ON_CUDA:
        if pair := rows.both(PART, size.name, OURS, TRANSFORMER):
            yield Verdict(PART, f"{size.name}: tokens/s over Transformer's", _speed(*pair), 0.95, True)
        if pair := rows.both(PART, size.name, OURS, OFFICIAL):
            yield Verdict(PART, f"{size.name}: speed over the official order", _speed(*pair), 2.0, True)
        yield from _memories(rows, size.name)


def _memories(rows: Rows, case: str) -> Iterator[Verdict]:
    pair = rows.both(PART, case, OURS, TRANSFORMER)
    if pair and all("peak_bytes" in row.figures for row in pair):
        share = pair[0].figures["peak_bytes"] / pair[1].figures["peak_bytes"]
        yield Verdict(PART, f"{case}: memory over the Transformer's", share, 1.1, False)


def _speed(one: Row, other: Row) -> float:
    return one.figures["tokens_per_second"] / other.figures["tokens_per_second"]
