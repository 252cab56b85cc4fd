"""Tests of the memory model of compiled blocks against torch's partitioner, with benchmarks.partition."""

import pytest

from benchmarks.partition import Case, kept_bytes, planned_bytes
from tfscale.bench.sizes import tokenformer, transformer

TOKENFORMER = tokenformer(72, n_layer=1, d=64, heads=2, context=64)
TRANSFORMER = transformer(n_layer=1, d=64, heads=2, context=64)


@pytest.mark.parametrize(
    "case",
    [
        Case(TOKENFORMER, bf16=True),
        Case(TOKENFORMER, bf16=True, recompute="pattention"),
        Case(TOKENFORMER, bf16=True, kernels=True),
        Case(TOKENFORMER, bf16=True, recompute="pattention", kernels=True),
        Case(TOKENFORMER, bf16=False),
        Case(TRANSFORMER, bf16=True),
    ],
    ids=lambda case: case.name,
)
def test_a_compiled_block_keeps_what_the_model_says(case: Case) -> None:
    if case.kernels:
        pytest.importorskip("triton")
    assert planned_bytes(case.config, case.execution) == pytest.approx(kept_bytes(case), rel=0.1)
