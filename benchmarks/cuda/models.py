"""Parts `tokenformer` and `other_models`: loss and gradients of both families against float64 on the CPU."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.cuda.bounds import GRADIENTS, OUTPUTS, Precision
from benchmarks.cuda.check import Check, relative, worst
from benchmarks.cuda.golden import gradients
from tfscale.bench.sizes import tokenformer, transformer
from tfscale.models.config import ModelConfig
from tfscale.models.execution import Recompute
from tfscale.models.init import build_model
from tfscale.models.parameter_tokens import Groups, TokenGroup
from tfscale.models.tokenformer import TokenFormerConfig

SEQUENCES = 3
UNEQUAL_SHOWN = 4


@dataclass(frozen=True)
class Case:
    """One way of computing a step."""

    bf16: bool
    compiled: bool
    recompute: Recompute = "none"
    kernels: bool = False
    """True for launcher.kernels=triton, which needs CUDA."""

    def __str__(self) -> str:
        way = f"{'bf16' if self.bf16 else 'fp32'} {'compiled' if self.compiled else 'eager'}{', Triton' * self.kernels}"
        return way if self.recompute == "none" else f"{way}, recompute={self.recompute}"


KEEPING = (Case(False, False), Case(True, False), Case(True, True), Case(False, True))
TRITON = (Case(True, True, kernels=True), Case(False, True, kernels=True))
RECOMPUTING = (
    Case(False, False, "pattention"),
    Case(True, False, "pattention"),
    Case(True, True, "pattention"),
    Case(True, True, "blocks"),
    Case(True, True, "pattention", kernels=True),
)


@dataclass(frozen=True)
class Reference:
    """A batch, and what float64 on the CPU makes of it."""

    config: ModelConfig
    inputs: Tensor
    targets: Tensor
    loss: float
    gradients: dict[str, Tensor]
    sequence_losses: Tensor


def check_tokenformer(check: Check) -> None:
    """The TokenFormer of the published proportions, with every way of recomputing."""
    _compare(check, "tokenformer", (*KEEPING, *TRITON, *RECOMPUTING))


def check_other_models(check: Check) -> None:
    """The Transformer, and TokenFormers with misaligned rows and with groups."""
    _compare(check, "transformer", (*KEEPING, Case(True, True, "blocks")))
    _compare(check, "misaligned", (*KEEPING, *TRITON))
    _compare(check, "grouped", (*KEEPING, *TRITON))


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


def _reference(config: ModelConfig) -> Reference:
    shape = (SEQUENCES, config.context + 1)
    tokens = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(1))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    model = build_model(config, seed=0).double()
    loss = model.loss(inputs, targets)
    loss.backward()
    each = model.sequence_losses(inputs, targets)
    return Reference(config, inputs, targets, loss.item(), gradients(model), each)


def _compare(check: Check, name: str, cases: tuple[Case, ...]) -> None:
    reference = _reference(_config(name, check.tiny))
    for case in cases:
        if case.kernels and not check.on_cuda:
            continue
        label = f"{name} {case}"
        found = check.record.attempt(label, partial(_errors, check, reference, case))
        if found:
            precision: Precision = "bf16" if case.bf16 else "fp32"
            check.record.bounded(f"{label}: losses", found["losses"], OUTPUTS[precision])
            check.record.bounded(f"{label}: gradients", found["gradients"], GRADIENTS[precision])


def _errors(check: Check, reference: Reference, case: Case) -> Mapping[str, Any]:
    """Relative errors of a step, which is made twice to see whether it repeats its bits."""
    check.fresh()
    torch.set_float32_matmul_precision("highest")
    model = build_model(reference.config, seed=0, device=check.device)
    model.recompute = case.recompute
    if case.kernels:
        model.use_kernels()
    if case.compiled:
        check.compile_parts(model)
    inputs, targets = reference.inputs.to(check.device), reference.targets.to(check.device)

    def step() -> tuple[float, dict[str, Tensor]]:
        model.zero_grad(set_to_none=True)
        with check.autocast(case.bf16):
            loss = model.loss(inputs, targets)
        loss.backward()
        return loss.item(), gradients(model)

    (loss, first), (loss_again, second) = step(), step()
    with check.autocast(case.bf16):
        each = model.sequence_losses(inputs, targets)
    error, where = worst(first, reference.gradients)
    check.confirm(case.compiled, case.bf16, error)
    unequal = [name for name, gradient in first.items() if not torch.equal(gradient, second[name])]
    return {
        "losses": relative(each, reference.sequence_losses),
        "loss_off": abs(loss - reference.loss),
        "gradients": error,
        "worst_gradient": where,
        "repeats_bits": loss == loss_again and not unequal,
        "unequal": unequal[:UNEQUAL_SHOWN],
    }
