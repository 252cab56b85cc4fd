"""Tests of the memory model against the resident memory of real training steps, with benchmarks.memory."""

import sys

import pytest

from benchmarks.memory import Case, measure_training_peak
from tfscale.bench.apart import run_apart
from tfscale.bench.sizes import tokenformer, transformer
from tfscale.models.config import ModelConfig
from tfscale.models.counts import memory
from tfscale.models.execution import Execution

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

TOKENFORMER = tokenformer(192, n_layer=4, d=256, heads=4, context=128)
TRANSFORMER = transformer(n_layer=4, d=256, heads=4, context=128)


@pytest.mark.parametrize(
    ("config", "execution"),
    [
        (TOKENFORMER, Execution(4)),
        (TOKENFORMER, Execution(4, recompute="blocks", in_backward=True)),
        (TRANSFORMER, Execution(4)),
    ],
)
def test_a_training_step_takes_what_the_model_says(config: ModelConfig, execution: Execution) -> None:
    peak = run_apart(measure_training_peak, Case(config, execution))
    assert memory(config, execution).total == pytest.approx(peak, rel=0.1)
