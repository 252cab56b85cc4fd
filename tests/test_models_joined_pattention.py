"""Pattention for a GPU, with weights that are aligned and joined and with Triton's kernels, as far as a CPU can hold
it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_models_pattention import IN, KINDS, OUT, assert_close, groups, operands
from torch import Tensor

from tfscale.models.joined_pattention import ALIGNMENT, joined_pattention
from tfscale.models.parameter_tokens import NormActivation
from tfscale.models.pattention import QKVPattention, plain_pattention

ROOT = Path(__file__).parents[1]
LIMIT = {"torch.float64": 1e-14, "torch.float32": 2e-6, "torch.bfloat16": 2e-2}
SIZES = (33, 37)
TOKENS = 40


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [SIZES[:1], SIZES])
def test_aligned_and_joined_weights_change_nothing(sizes: tuple[int, ...], kind: NormActivation) -> None:
    parts, (x, *_) = groups(*sizes, kind=kind), operands(1, torch.float64)
    torch.manual_seed(0)
    weights = [torch.randn(sum(sizes), width).double().requires_grad_() for width in (IN, OUT) * 3]
    pairs = [*zip(weights[::2], weights[1::2], strict=True)]
    ours = joined_pattention(x, pairs, parts, kind, kernels=False)
    defined = torch.stack([plain_pattention(x, *pair, parts, kind) for pair in pairs], dim=-2)
    gradient = torch.randn(defined.shape).double()
    both = ([out, *torch.autograd.grad(out, (x, *weights), gradient)] for out in (ours, defined))
    assert_close(*both, limit=1e-14)


@pytest.mark.parametrize(("kernels", "expected"), [(False, 2), (True, 1)])
def test_compiled_code_keeps_aligned_scores(kernels: bool, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels:
        _pretend_gpu(monkeypatch)
    layer = QKVPattention(IN, groups(*SIZES), "l2_norm_gelu")
    layer.query.kernels = kernels
    kept = _kept_by_compiled(layer, torch.randn(TOKENS, IN, requires_grad=True))
    n = -(-sum(SIZES) // ALIGNMENT) * ALIGNMENT
    of_scores = [each for each in kept if each.numel() == TOKENS * 3 * n]
    assert len(of_scores) == expected
    assert {each.dtype for each in of_scores} == {torch.bfloat16}
    assert not [each for each in kept if sum(SIZES) in each.shape and each.dtype == torch.bfloat16]


def _kept_by_compiled(layer: torch.nn.Module, x: Tensor) -> list[Tensor]:
    """Tensors that the compiled forward pass under bf16 autocast keeps for the backward pass. Neither pass runs."""
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


def _pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Triton's front end, which finds out what a kernel writes, work without a GPU."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget

    class Driver:
        def get_current_target(self) -> object:
            return GPUTarget("cuda", 90, 32)

    monkeypatch.setattr(triton.runtime.driver, "_active", Driver())


def test_interpreted_kernels_equal_the_definition() -> None:
    pytest.importorskip("triton")
    script = ROOT / "tests" / "interpreted_kernels.py"
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, str(script)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cases = json.loads(done.stdout)
    assert len(cases) == 12
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
