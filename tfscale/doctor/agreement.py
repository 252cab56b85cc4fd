"""Comparison between losses and gradients from a device and float64 results from the CPU, and bounds on the errors."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tfscale.models.config import ModelConfig
from tfscale.models.execution import Recompute
from tfscale.models.init import build_model
from tfscale.models.language_model import LanguageModel
from tfscale.stage.run_options import Precision

OUTPUTS: dict[Precision, float] = {"fp32": 1e-5, "tf32": 1e-3, "bf16": 2e-2}
"""Bound on the relative error (`relative`) of logits and of losses per sequence, by precision."""
GRADIENTS: dict[Precision, float] = {"fp32": 1e-5, "tf32": 1e-3, "bf16": 5e-2}
"""Bound on the largest relative error among the gradients of all parameters, by precision."""
LOSS_BOUND_NATS = 5e-2
"""Bound in nats per token on the difference between the final validation losses of two stages with the same spec, one
of which was interrupted or run with other settings. Rounding alone causes differences of 0.01 to 0.02 nats."""
PEAK_SHARE = 0.10
"""Bound on the difference between the measured and the planned peak memory of a step, as a fraction of the planned
memory."""
SEQUENCES = 3


@dataclass(frozen=True)
class ExecutionMode:
    """Precision and execution mode of a training step."""

    bf16: bool
    compiled: bool
    """True to compile the model on CUDA. On a CPU, the model is never compiled, because this would take minutes."""
    recompute: Recompute = "none"
    kernels: bool = False
    """True for launcher.kernels=triton, which needs CUDA."""

    @property
    def precision(self) -> Precision:
        """Precision of matrix products: `bf16` or `fp32`."""
        return "bf16" if self.bf16 else "fp32"

    def __str__(self) -> str:
        way = f"{self.precision} {'compiled' if self.compiled else 'eager'}{', Triton' * self.kernels}"
        return way if self.recompute == "none" else f"{way}, recompute={self.recompute}"


WAYS = (ExecutionMode(False, False), ExecutionMode(True, False), ExecutionMode(True, True), ExecutionMode(False, True))


@dataclass(frozen=True)
class Reference:
    """A batch, and the losses and gradients of a model for this batch, computed in float64 on the CPU."""

    config: ModelConfig
    inputs: Tensor
    targets: Tensor
    loss: float
    gradients: dict[str, Tensor]
    sequence_losses: Tensor


@dataclass(frozen=True)
class Errors:
    """Errors of a training step's losses and gradients relative to a `Reference`."""

    losses: float
    """Relative error of the losses per sequence."""
    loss_error: float
    """Absolute error of the mean loss in nats per token."""
    gradients: float
    """Largest relative error among the gradients of all parameters."""
    worst_gradient: str
    """Name of the parameter whose gradient has the largest error."""
    unequal: tuple[str, ...]
    """Names of the parameters whose gradients are not bit-equal when the step is repeated, and `loss` if the loss
    differs."""

    def within(self, precision: Precision) -> bool:
        """Return True if the errors are within the bounds for a precision. NaN exceeds every bound."""
        return self.losses <= OUTPUTS[precision] and self.gradients <= GRADIENTS[precision]


def make_reference(config: ModelConfig) -> Reference:
    """Return a random batch, and the losses and gradients of a newly initialized model for this batch in float64. The
    batch and the initial weights are the same in every call with the same config."""
    shape = (SEQUENCES, config.context + 1)
    tokens = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(1))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    model = build_model(config, seed=0).double()
    loss = model.loss(inputs, targets)
    loss.backward()
    each = model.sequence_losses(inputs, targets)
    return Reference(config, inputs, targets, loss.item(), gradients(model), each)


def measure_errors(reference: Reference, way: ExecutionMode, device: Literal["cpu", "cuda"]) -> Errors:
    """Compute the losses and gradients of a training step on a device, and return the errors relative to the reference.
    The step runs twice, to check whether the results are bit-equal."""
    torch.set_float32_matmul_precision("highest")
    model = build_model(reference.config, seed=0, device=device)
    model.recompute = way.recompute
    if way.kernels:
        model.use_kernels()
    if way.compiled and device == "cuda":
        model.compile_parts()
    inputs, targets = reference.inputs.to(device), reference.targets.to(device)
    autocast = torch.autocast(device, torch.bfloat16) if way.bf16 else contextlib.nullcontext()

    def step() -> tuple[float, dict[str, Tensor]]:
        model.zero_grad(set_to_none=True)
        with autocast:
            loss = model.loss(inputs, targets)
        loss.backward()
        return loss.item(), gradients(model)

    (loss, first), (loss_again, second) = step(), step()
    with autocast:
        each = model.sequence_losses(inputs, targets)
    error, where = worst(first, reference.gradients)
    unequal = [name for name, gradient in first.items() if not torch.equal(gradient, second[name])]
    return Errors(
        losses=relative(each, reference.sequence_losses),
        loss_error=abs(loss - reference.loss),
        gradients=error,
        worst_gradient=where,
        unequal=(*unequal, *(["loss"] if loss != loss_again else [])),
    )


def gradients(model: LanguageModel) -> dict[str, Tensor]:
    """Return the gradient of each parameter of a model after a backward pass, by name."""
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert len(found) == len(list(model.parameters())), "every parameter has a gradient"
    return found


def relative(value: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference between two tensors, divided by the norm of the expected tensor."""
    found, wanted = value.detach().double().cpu(), expected.detach().double().cpu()
    assert found.shape == wanted.shape, f"{tuple(found.shape)} is not {tuple(wanted.shape)}"
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))


def worst(values: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[float, str]:
    """Return the largest relative error (`relative`) among tensors of the same name, and the name of the tensor with
    this error. NaN counts as the largest error."""
    assert values.keys() == expected.keys(), f"only on one side: {sorted(values.keys() ^ expected.keys())}"
    errors = {name: relative(values[name], expected[name]) for name in expected}
    name = max(errors, key=lambda name: (math.isnan(errors[name]), errors[name]))
    return errors[name], name
