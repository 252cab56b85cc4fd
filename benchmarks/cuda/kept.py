"""Part `kept`, which compares the bytes per token that a block saves for its backward pass with the memory model."""

from collections.abc import Mapping
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.cuda.check import Check
from benchmarks.partition import SEQUENCES, planned_bytes
from tfscale.bench.sizes import tokenformer, transformer
from tfscale.models.config import ModelConfig
from tfscale.models.execution import Execution, Recompute
from tfscale.models.init import build_model
from tfscale.models.rotary import rotary_table

LARGEST_SHOWN = 14


def kept(check: Check) -> None:
    """Measure blocks of both families, eager and compiled, in both precisions."""
    d, context, rows = (64, 32, (48,)) if check.tiny else (768, 128, (576, 2140))
    shape = {"n_layer": 1, "d": d, "heads": 4, "context": context, "vocabulary": 512}
    models: dict[str, tuple[ModelConfig, tuple[Recompute, ...]]] = {
        **{f"tokenformer n={n}": (tokenformer(n, **shape), ("none", "pattention")) for n in rows},
        "transformer": (transformer(**shape), ("none",)),
    }
    for name, (config, recomputes) in models.items():
        for bf16, recompute, compiled in product((True, False), recomputes, (True, False)):
            words = (name, "bf16" if bf16 else "fp32", recompute, "compiled" if compiled else "eager")
            check.record.attempt(", ".join(words), partial(_measure, check, config, bf16, recompute, compiled))


def _measure(check: Check, config: ModelConfig, bf16: bool, recompute: Recompute, compiled: bool) -> Mapping[str, Any]:
    check.reset()
    model = build_model(config, seed=0, device=check.device)
    model.recompute = recompute
    if compiled:
        check.compile_parts(model)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    x = torch.randn(SEQUENCES, config.context, config.d_model, device=check.device, requires_grad=True)
    rotation = rotary_table(config, torch.arange(config.context, device=check.device), x.dtype)
    found: dict[int, tuple[int, str]] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            found[storage.data_ptr()] = storage.nbytes(), f"{tuple(tensor.shape)} {tensor.dtype}"
        return tensor

    with saved_tensors_hooks(record, lambda tensor: tensor), check.autocast(bf16):
        model.blocks[0](x, rotation)
    tokens = SEQUENCES * config.context
    execution = Execution(
        SEQUENCES, 2 if bf16 else 4, recompute, device=check.device, compiled=compiled and check.on_cuda
    )
    largest = sorted(found.values(), reverse=True)[:LARGEST_SHOWN]
    return {
        "bytes_per_token": sum(size for size, _ in found.values()) / tokens,
        "planned_bytes_per_token": planned_bytes(config, execution) / tokens,
        "largest": [f"{size} {shape}" for size, shape in largest],
    }
