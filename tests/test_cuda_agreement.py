"""Tests of the comparison of a device with float64: errors, bounds, and measurements that were not made as named."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from benchmarks.cuda import compiler  # noqa: E402
from benchmarks.cuda.check import Check  # noqa: E402
from benchmarks.cuda.findings import (  # noqa: E402
    NotMeasured,
    Recorder,
)
from tfscale.bench.sizes import tokenformer  # noqa: E402
from tfscale.doctor.agreement import Errors, worst  # noqa: E402
from tfscale.doctor.device_check import _agreement  # noqa: E402
from tfscale.models.init import build_model  # noqa: E402


def test_a_nan_gradient_is_the_worst_and_no_gradient_may_be_missing() -> None:
    expected = {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)}
    values = {"a": torch.full((2,), 3.0), "b": torch.tensor([1.0, torch.nan]), "c": torch.ones(2)}
    error, where = worst(values, expected)
    assert math.isnan(error)
    assert where == "b"
    assert worst({**values, "b": torch.ones(2)}, expected) == (2.0, "a")
    with pytest.raises(AssertionError, match="only on one side"):
        worst({"a": torch.ones(2)}, expected)


def test_both_families_agree_with_float64_on_the_cpu() -> None:
    found = [*_agreement("cpu")]
    assert [each.name for each in found] == ["tokenformer"] * 2 + ["transformer"] * 2
    assert all(each.ok for each in found)


def test_nan_and_errors_over_a_bound_are_not_within_it() -> None:
    found = Errors(losses=1e-6, loss_error=0.0, gradients=1e-6, worst_gradient="", unequal=())
    assert found.within("fp32")
    assert not replace(found, losses=2e-5).within("fp32")
    assert not replace(found, gradients=math.nan).within("bf16")


def test_gradients_that_are_too_accurate_for_bf16_are_rejected(tmp_path: Path) -> None:
    check = Check(tmp_path, Recorder(tmp_path, "golden"), "cpu", tiny=True)
    check.confirm(compiled=False, bf16=True, error=0.01)
    with pytest.raises(NotMeasured, match="autocast"):
        check.confirm(compiled=False, bf16=True, error=1e-6)


def test_a_measurement_of_compiled_code_fails_if_nothing_was_compiled() -> None:
    model = build_model(tokenformer(8, 1, 16, 2, 8, 32), seed=0)
    tokens = torch.arange(8).view(1, 8)
    compiler.reset()
    model.loss(tokens, tokens)
    compiler.confirm(compiled=False)
    with pytest.raises(NotMeasured, match="0 graphs"):
        compiler.confirm(compiled=True)
    model.blocks[0].compile(backend="eager")
    model.loss(tokens, tokens)
    compiler.confirm(compiled=True)
    with pytest.raises(NotMeasured, match="1 graphs"):
        compiler.confirm(compiled=False)


def test_a_measurement_of_compiled_code_with_graph_breaks_fails() -> None:
    def with_graph_break(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        torch._dynamo.graph_break()
        return x + 1

    compiler.reset()
    torch.compile(with_graph_break, backend="eager")(torch.ones(1))
    with pytest.raises(NotMeasured, match="graph breaks"):
        compiler.confirm(compiled=True)
