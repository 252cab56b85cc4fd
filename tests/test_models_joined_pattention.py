"""Tests of Pattention for a GPU, with aligned and joined weights and Triton kernels, as far as they can run on a
CPU."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from test_models_pattention import CONFIGS, IN, KINDS, OUT, assert_close, groups, operands
from torch import Tensor

from benchmarks.partition import mock_gpu
from tfscale.models.init import build_model
from tfscale.models.parameter_tokens import NormActivation
from tfscale.models.pattention import Pattention, QKVPattention, joined_pattention, plain_pattention
from tfscale.stage.layout import Layout
from tfscale.stage.spec import RunSpec
from tfscale.training.device import Device, resolve
from tfscale.training.parallel import parallelize
from tfscale.training.world import World

ROOT = Path(__file__).parents[1]
LIMIT = {"torch.float64": 1e-14, "torch.float32": 2e-6, "torch.bfloat16": 2e-2}
SIZES = (33, 37)
TOKENS = 29


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [SIZES[:1], SIZES])
def test_aligned_and_joined_weights_change_nothing(sizes: tuple[int, ...], kind: NormActivation) -> None:
    parts, (x, *_) = groups(*sizes, kind=kind), operands(1, torch.float64)
    torch.manual_seed(0)
    weights = [torch.randn(sum(sizes), width).double().requires_grad_() for width in (IN, OUT) * 3]
    pairs = [*zip(weights[::2], weights[1::2], strict=True)]
    ours = joined_pattention(x, pairs, parts, kind, recompute=False, kernels=False)
    defined = torch.stack([plain_pattention(x, *pair, parts, kind) for pair in pairs], dim=-2)
    gradient = torch.randn(defined.shape).double()
    both = ([out, *torch.autograd.grad(out, (x, *weights), gradient)] for out in (ours, defined))
    assert_close(*both, limit=1e-14)


@pytest.mark.parametrize(("kernels", "recompute", "expected"), [(False, False, 2), (True, False, 1), (True, True, 0)])
def test_compiled_code_keeps_aligned_scores_and_no_copies_of_weights(
    kernels: bool, recompute: bool, expected: int
) -> None:
    if kernels:
        pytest.importorskip("triton")
    layer = QKVPattention(IN, groups(*SIZES), "l2_norm_gelu")
    layer.query.kernels, layer.query.recompute = kernels, recompute
    with mock_gpu() if kernels else nullcontext():
        kept = _kept_by_compiled(layer, torch.randn(TOKENS, IN, requires_grad=True))
    sizes = [each.numel() for each in kept if each.dtype == torch.bfloat16]
    assert sizes.count(TOKENS * 3 * 128) == expected  # SIZES, padded
    assert 3 * 128 * IN not in sizes


def _kept_by_compiled(layer: torch.nn.Module, x: Tensor) -> list[Tensor]:
    """Return the tensors that the compiled forward pass under bf16 autocast saves for the backward pass, without
    running either pass."""
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.partitioners import min_cut_rematerialization_partition

    torch._dynamo.reset()
    kept: list[Tensor] = []

    def compile_graph(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        nodes = graph.graph.output_node().args[0]
        values = [node.meta["val"] for node in nodes if node is not None]
        kept[:] = kept or values[1:]
        empty = [torch.empty(each.shape, dtype=each.dtype) for each in values]

        def run(given: list[Tensor]) -> list[Tensor]:
            given.clear()
            return empty

        run._boxed_call = True  # type: ignore[attr-defined]
        return run

    backend = aot_autograd(fw_compiler=compile_graph, partition_fn=min_cut_rematerialization_partition)
    with torch.autocast("cpu", torch.bfloat16):
        torch.compile(layer, backend=backend, fullgraph=True)(x)
    assert kept
    return kept


def test_interpreted_kernels_equal_the_definition() -> None:
    pytest.importorskip("triton")
    script = ROOT / "tests" / "interpreted_kernels.py"
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, str(script)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cases = json.loads(done.stdout)
    assert len(cases) == 6
    for dtype, errors in cases:
        assert max(errors) <= LIMIT[dtype], (dtype, errors)


@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_a_gpu(capability: int) -> None:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tfscale.models import norm_gelu_kernels

    constants = {"TAU": 24.0, "EPS": 1e-9, "BLOCK": 1024}
    types = {**dict.fromkeys(constants, "constexpr"), "scales": "*fp32"}
    types |= dict.fromkeys(("scores", "weights", "d_scores", "d_weights"), "*bf16")
    for kernel in (norm_gelu_kernels._norm_gelu, norm_gelu_kernels._norm_gelu_backward):
        signature = {name: types.get(name, "i32") for name in kernel.arg_names}
        source = ASTSource(kernel, signature, {name: constants[name] for name in constants if name in signature})
        assert triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]


def test_a_setting_selects_the_kernels_and_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"launcher\.kernels=triton: must be compiled on a CPU"):
        resolve(RunSpec(kernels="triton", data_dir=""))
    model, layout = build_model(CONFIGS[0], seed=0), Layout("none", "none", 1, 1, "set")
    parallelize(model, World(), Device("cpu", bf16=False, compiled=False, kernels=True), layout)
    assert {layer.kernels for layer in model.modules() if isinstance(layer, Pattention)} == {True}
