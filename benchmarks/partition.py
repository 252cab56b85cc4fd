"""Comparison of the memory model of a compiled block with the bytes that torch's partitioner saves for the backward
pass.

All tensors are fake, so the published sizes need neither memory nor a GPU. The partitioner is the same on all devices.
To trace Triton kernels without a GPU, the module replaces Triton's driver by a mock.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product
from unittest.mock import Mock, patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from tfscale.bench.rows import Found, Row
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import PAPER
from tfscale.models.config import ModelConfig
from tfscale.models.counts import memory
from tfscale.models.execution import Execution, Recompute
from tfscale.models.init import build_model
from tfscale.models.rotary import rotary_table

PART = "partition"
SEQUENCES = 4


@dataclass(frozen=True)
class Case:
    """Block to measure, with its precision, activation checkpointing and kernels."""

    config: ModelConfig
    bf16: bool
    recompute: Recompute = "none"
    kernels: bool = False

    @property
    def name(self) -> str:
        """Name with family, precision, activation checkpointing and kernels."""
        mode = f", recompute={self.recompute}" if self.recompute != "none" else ""
        return f"{self.config.family}, {'bf16' if self.bf16 else 'fp32'}{mode}{', Triton' if self.kernels else ''}"

    @property
    def execution(self) -> Execution:
        """Execution of the compiled block."""
        return Execution(SEQUENCES, 2 if self.bf16 else 4, self.recompute, compiled=True, kernels=self.kernels)


def measure(settings: Settings) -> Iterator[Found]:
    """Measure a block of each family, at every published size and in both precisions."""
    for size, pair in PAPER.items():
        for case in (case for config in pair for case in _cases(config) if settings.wants(size)):
            kept, planned = kept_bytes(case), planned_bytes(case.config, case.execution)
            figures = {"kept_bytes": kept, "planned_bytes": planned, "share_off": abs(planned / kept - 1)}
            yield Row(PART, size, case.name, (), figures)


def _cases(config: ModelConfig) -> Iterator[Case]:
    kernels = (False, True) if config.family == "tokenformer" and find_spec("triton") else (False,)
    for bf16, recompute, triton in product((True, False), config.recomputes, kernels):
        if recompute != "blocks":
            yield Case(config, bf16, recompute, triton)


@contextlib.contextmanager
def mock_gpu() -> Iterator[None]:
    """Enable the analysis of Triton kernels on a machine without a GPU, by a mock of Triton's driver."""
    from triton import runtime
    from triton.backends.compiler import GPUTarget

    driver = Mock(get_current_target=lambda: GPUTarget("cuda", 90, 32))
    with patch.object(runtime.driver, "_active", driver):
        yield


def kept_bytes(case: Case) -> int:
    """Return the number of bytes that a compiled block saves for its backward pass, including its input and excluding
    its weights."""
    torch._dynamo.reset()
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor  # keep the tensor alive, so that no address is reused
        return tensor

    config = replace(case.config, n_layer=1, vocab_size=1)
    autocast = torch.autocast("cpu", torch.bfloat16) if case.bf16 else contextlib.nullcontext()
    gpu = mock_gpu() if case.kernels else contextlib.nullcontext()
    with gpu, FakeTensorMode(allow_non_fake_inputs=True):
        model = build_model(config)
        model.recompute = case.recompute
        if case.kernels:
            model.use_kernels()
        model.blocks[0].compile(backend="aot_eager_decomp_partition", dynamic=False)
        x = torch.empty(SEQUENCES, config.context, config.d_model, requires_grad=True)
        rotation = rotary_table(config, torch.arange(config.context), x.dtype)
        with saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
            model.blocks[0](x, rotation)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in weights)


def planned_bytes(config: ModelConfig, execution: Execution) -> int:
    """Return the bytes of activations that the memory model adds for one more block."""
    one, two = (memory(replace(config, n_layer=layers), execution).activations for layers in (1, 2))
    return two - one
