"""The memory model against the resident memory of real training steps, by the means of benchmarks/memory.py."""

import importlib.util
import sys
from pathlib import Path

import pytest

from tfscale.models.counts import memory
from tfscale.models.execution import Execution

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "memory.py"
SPEC = importlib.util.spec_from_file_location("benchmarks_memory", SCRIPT)
assert SPEC is not None
assert SPEC.loader is not None
benchmark = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = benchmark  # dataclasses look their module up there
SPEC.loader.exec_module(benchmark)

TOKENFORMER = benchmark.tokenformer(192, n_layer=4, d=256, heads=4, context=128)
TRANSFORMER = benchmark.transformer(n_layer=4, d=256, heads=4, context=128)


@pytest.mark.parametrize(
    ("config", "execution"),
    [
        (TOKENFORMER, Execution(4)),
        (TOKENFORMER, Execution(4, recompute="blocks", in_backward=True)),
        (TRANSFORMER, Execution(4)),
    ],
)
def test_a_training_step_takes_what_the_model_says(config: object, execution: Execution) -> None:
    measured = benchmark.measure(benchmark.Case(config, execution))
    assert memory(config, execution).total == pytest.approx(measured, rel=0.1)  # type: ignore[arg-type]
