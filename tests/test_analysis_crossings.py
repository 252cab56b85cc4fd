"""Reading between a curve's points."""

import numpy as np
import pytest
from points import first_reach, perplexity_at

from tfscale.analysis.bootstrap import Curves

POWER_LAW = [(compute, 100 * compute**-0.5) for compute in (10.0, 40.0, 1000.0)]


def test_interpolation_is_exact_on_a_power_law() -> None:
    assert perplexity_at(POWER_LAW, 100) == pytest.approx(10)
    assert first_reach(POWER_LAW, 10) == ("reached", pytest.approx(100))


@pytest.mark.parametrize("compute", [9.99, 1000.1])
def test_nothing_is_read_outside_the_measured_range(compute: float) -> None:
    assert perplexity_at(POWER_LAW, compute) is None


def test_a_curve_that_starts_below_the_target_bounds_the_compute() -> None:
    assert first_reach(POWER_LAW, 50) == ("at least", pytest.approx(10))


def test_a_curve_that_stays_above_the_target_has_not_reached_it() -> None:
    assert first_reach(POWER_LAW, 1) == ("not reached", None)


def test_the_first_crossing_counts_when_a_curve_rises_again() -> None:
    assert first_reach([(1, 8), (10, 4), (20, 6), (30, 4)], 4) == ("reached", pytest.approx(10))


@pytest.mark.parametrize(
    ("target", "answer"),
    [(5, ("at least", pytest.approx(7))), (4, ("at least", pytest.approx(7))), (3, ("not reached", None))],
)
def test_a_curve_of_one_point_bounds_or_misses(target: float, answer: tuple[str, float | None]) -> None:
    assert first_reach([(7, 4)], target) == answer
    assert perplexity_at([(7, 4)], 7) == pytest.approx(4)
    assert perplexity_at([(7, 4)], 8) is None


def test_stacks_of_curves_answer_as_each_curve_does() -> None:
    draw = np.random.default_rng(0)
    log_compute = np.sort(draw.uniform(0, 5, (50, 6)), axis=1)
    losses = draw.uniform(1, 3, (50, 6))
    targets, at = draw.uniform(0.8, 3, 50), draw.uniform(-1, 6, 50)
    curves = Curves(log_compute, losses)
    reached, bound = curves.first_reach(targets)
    values = curves.losses_at(at)
    for row in range(50):
        points = list(zip(np.exp(log_compute[row]), np.exp(losses[row]), strict=True))
        state, compute = first_reach(points, float(np.exp(targets[row])))
        assert (state == "at least") == bound[row]
        assert (float(np.log(compute)) if compute else np.inf) == pytest.approx(reached[row])
        value = perplexity_at(points, float(np.exp(at[row])))
        assert np.isnan(values[row]) if value is None else float(np.log(value)) == pytest.approx(values[row])
