"""Parts `step_*`, `deterministic` and `small_models`, which measure training steps of the TokenFormer, of the
Transformer, and of a TokenFormer with the official order of operations."""

import gc
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.cuda import compiler
from benchmarks.cuda.check import Check
from benchmarks.cuda.findings import KERNELS, NotMeasured
from benchmarks.pattention import official
from benchmarks.step import OFFICIAL, ReferenceModel
from tfscale.bench.contest import make_matrix_product
from tfscale.bench.sizes import PAPER, PROGRESSIVE_4, TINY_4, Size, tokenformer, transformer
from tfscale.bench.trained import OPTIMIZER, OURS, TRANSFORMER, Entry, TrainedModel, make_batch, planned_memory
from tfscale.models.init import build_model
from tfscale.stage.spec import RunSpec
from tfscale.training.device import resolve
from tfscale.training.optimizer import ModelOptimizer

SEQUENCES = {"124M": 32, "354M": 16, "757M": 8, "1.4B": 8}
KERNELS_SHOWN = 25
TRITON = replace(OURS, name="ours, Triton")
"""TokenFormer with launcher.kernels=triton, which needs CUDA."""
H100_PEAK = 989.4e12
"""Dense bf16 FLOPs per second in the datasheets of H100 and H200, to which MFU refers."""


def step(name: str, check: Check) -> None:
    """Measure training steps at one of the published sizes."""
    size = _size(check, name)
    peak_flops = _peak_flops(check)
    for who in (OURS, TRANSFORMER, *([TRITON] if check.on_cuda else []), OFFICIAL):
        measure = _measure_if_it_fits if who == OFFICIAL else _measure
        found = check.record.attempt(who.name, partial(measure, check, size, who, peak_flops))
        if found and who in (OURS, TRANSFORMER):  # the plan does not model the official order's whole logits
            check.bound_peak(who.name, found["peak_bytes"], found["planned_bytes"])
        gc.collect()


def small_models(check: Check) -> None:
    """Measure training steps of the small chains, to see whether a GPU is useful for them."""
    for size in (PROGRESSIVE_4,) if check.tiny else (TINY_4, PROGRESSIVE_4):
        check.record.attempt(size.name, partial(_measure, check, size, OURS, None))


def deterministic(check: Check) -> None:
    """Measure the cost of `launcher.deterministic` with 124M parameters."""
    size = _size(check, "124M")
    resolve(RunSpec(data_dir="", device=check.device, threads=check.threads, deterministic=True))
    check.record.attempt("ours, deterministic", partial(_measure, check, size, OURS, None))
    torch.use_deterministic_algorithms(False)
    torch._inductor.config.deterministic = False
    check.record.attempt("ours", partial(_measure, check, size, OURS, None))


def _size(check: Check, name: str) -> Size:
    pair = (tokenformer(24, 2, 64, 4, 64, 512), transformer(2, 64, 4, 64, 512)) if check.tiny else PAPER[name]
    return Size(name, *pair, 4 if check.tiny else SEQUENCES[name], pair[0].context)


def _peak_flops(check: Check) -> float | None:
    if check.tiny:
        return None
    product, flops = make_matrix_product(check.settings)
    return flops / check.seconds(product, 5, 0.3)


def _measure_if_it_fits(check: Check, size: Size, who: Entry, peak_flops: float | None) -> Mapping[str, Any]:
    try:
        return _measure(check, size, who, peak_flops)
    except torch.OutOfMemoryError:
        return {"fits": False}


def _measure(check: Check, size: Size, who: Entry, peak_flops: float | None) -> Mapping[str, Any]:
    check.reset()
    made = _contestant(check, size, who)
    seconds_of_first = check.settings.time(made.step)
    seconds = _seconds(check, made, 0.8 if who == OFFICIAL else 1.5)
    peak = _peak_of_two_micro_batches(check, made)
    flops = who.step_flops(size) / seconds
    h100 = check.on_cuda and any(name in torch.cuda.get_device_name() for name in ("H100", "H200"))
    return {
        "milliseconds": 1e3 * seconds,
        "tokens_per_second": size.tokens / seconds,
        "tflops": flops / 1e12,
        "mfu": flops / H100_PEAK if h100 else None,
        "share_of_matrix_product": flops / peak_flops if peak_flops else None,
        "peak_bytes": peak,
        "planned_bytes": planned_memory(who.config(size), size.sequences, check.device, kernels=who == TRITON),
        "seconds_of_first_step": seconds_of_first,
        **(_kernels(made) if check.on_cuda else {}),
    }


def _seconds(check: Check, made: TrainedModel, for_seconds: float) -> float:
    """Return the time of a step in seconds, and check that no timed step compiled."""
    made.step()
    before = compiler.graphs() if check.on_cuda else 0
    seconds = check.seconds(made.step, 8, for_seconds)
    if check.on_cuda and compiler.graphs() != before:
        raise NotMeasured("steps recompiled while they were timed")
    return seconds


def _peak_of_two_micro_batches(check: Check, made: TrainedModel) -> int | None:
    """Return the peak memory of a step with two micro-batches. As in the plan, gradients of the first micro-batch exist
    during the second one."""
    check.reset_peak()
    with made.settings.autocast():
        loss = made.loss(*made.batch)
    loss.backward()
    del loss
    made.step()
    return check.peak()


def _contestant(check: Check, size: Size, who: Entry) -> TrainedModel:
    """Return a model and its optimizer for timing. The weights are random and created on the device, because the usual
    initialisation of a large model takes ten seconds on the CPU and does not affect the speed."""
    config, settings = who.config(size), check.settings
    batch = make_batch(config, size, check.device)
    if who == OFFICIAL:
        with torch.device(check.device):
            reference = ReferenceModel(size.tokenformer, official)
        _initialize(reference)
        return TrainedModel(reference, reference.loss, ModelOptimizer(reference, OPTIMIZER, config), batch, settings)
    model = build_model(config, device=check.device)
    _initialize(model)
    if who == TRITON:
        model.use_kernels()
    check.compile_parts(model)
    return TrainedModel(model, model.loss, ModelOptimizer(model, OPTIMIZER, config), batch, settings)


@torch.no_grad()
def _initialize(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.fill_(1.0)
        elif name.endswith("norm.bias"):
            parameter.zero_()
        else:
            parameter.normal_(0.0, 0.02)


def _kernels(made: TrainedModel) -> Mapping[str, Any]:
    """Profile a step, and return the total time of its kernels and a list of the longest kernels, each with its name,
    number of calls and milliseconds."""
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        made.step()
        torch.cuda.synchronize()
    rows = [each for each in found.key_averages() if each.device_type == DeviceType.CUDA]
    rows.sort(key=lambda row: -row.self_device_time_total)
    longest = rows[:KERNELS_SHOWN]
    return {
        "device_milliseconds": sum(row.self_device_time_total for row in rows) / 1e3,
        KERNELS: [(row.key[:90], row.count, round(row.self_device_time_total / 1e3, 2)) for row in longest],
    }
