"""Parts `tokenformer` and `other_models`, which compare losses and gradients of both model families with float64
results of the CPU."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from benchmarks.cuda.check import Check
from tfscale.bench.sizes import tokenformer, transformer
from tfscale.doctor.agreement import GRADIENTS, OUTPUTS, WAYS, ExecutionMode, Reference, make_reference, measure_errors
from tfscale.models.config import ModelConfig
from tfscale.models.parameter_tokens import Groups, TokenGroup
from tfscale.models.tokenformer import TokenFormerConfig

UNEQUAL_SHOWN = 4
TRITON = (ExecutionMode(True, True, kernels=True), ExecutionMode(False, True, kernels=True))
RECOMPUTING = (
    ExecutionMode(False, False, "pattention"),
    ExecutionMode(True, False, "pattention"),
    ExecutionMode(True, True, "pattention"),
    ExecutionMode(True, True, "blocks"),
    ExecutionMode(True, True, "pattention", kernels=True),
)


def check_tokenformer(check: Check) -> None:
    """Check the TokenFormer with the published proportions, with every mode of activation checkpointing."""
    _compare(check, "tokenformer", (*WAYS, *TRITON, *RECOMPUTING))


def check_other_models(check: Check) -> None:
    """Check the Transformer, a TokenFormer with an unaligned number of parameter tokens, and a TokenFormer with several
    groups of them."""
    _compare(check, "transformer", (*WAYS, ExecutionMode(True, True, "blocks")))
    _compare(check, "misaligned", (*WAYS, *TRITON))
    _compare(check, "grouped", (*WAYS, *TRITON))


def _config(name: str, tiny: bool) -> ModelConfig:
    layers, d, context, vocabulary = (2, 64, 32, 512) if tiny else (2, 768, 256, 50_304)
    if name == "transformer":
        return transformer(layers, d, 4, context, vocabulary)
    if name == "grouped":
        small, large = _groups(48, 24), _groups(192, 96)
        return TokenFormerConfig(layers, d, 4, vocabulary, context, small, small, large)
    n = {"tokenformer": 72 if tiny else 576, "misaligned": 70 if tiny else 1070}[name]
    return tokenformer(n, layers, d, 4, context, vocabulary)


def _groups(*counts: int) -> Groups:
    return tuple(TokenGroup(n, math.sqrt(n)) for n in counts)


def _compare(check: Check, name: str, ways: tuple[ExecutionMode, ...]) -> None:
    reference = make_reference(_config(name, check.tiny))
    for way in ways:
        if way.kernels and not check.on_cuda:
            continue
        label = f"{name} {way}"
        found = check.record.attempt(label, partial(_errors, check, reference, way))
        if found:
            check.record.bounded(f"{label}: losses", found["losses"], OUTPUTS[way.precision])
            check.record.bounded(f"{label}: gradients", found["gradients"], GRADIENTS[way.precision])


def _errors(check: Check, reference: Reference, way: ExecutionMode) -> Mapping[str, Any]:
    check.reset()
    found = measure_errors(reference, way, check.device)
    check.confirm(way.compiled, way.bf16, found.gradients)
    return {
        "losses": found.losses,
        "loss_error": found.loss_error,
        "gradients": found.gradients,
        "worst_gradient": found.worst_gradient,
        "repeats_bits": not found.unequal,
        "unequal": found.unequal[:UNEQUAL_SHOWN],
    }
