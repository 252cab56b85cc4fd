"""Costs, and what a chain saves, on planted curves whose answers are known."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from test_analysis_curves import spent, write_arms, write_stage

from tfscale.analysis.costs import (
    at_equal_compute,
    at_equal_perplexity,
    cost_ratio,
    cumulative,
    family,
    first_reach,
    marginal,
    perplexity_at,
)
from tfscale.analysis.curves import ArmCurve, StageCurve, read_arms, read_stage

POWER_LAW = [(compute, 100 * compute**-0.5) for compute in (10.0, 40.0, 1000.0)]


def arms(runs: Path) -> tuple[ArmCurve, ArmCurve, ArmCurve]:
    chain, scratch, on = read_arms(write_arms(runs))
    return chain, scratch, on


def test_interpolation_is_exact_on_a_power_law() -> None:
    assert perplexity_at(POWER_LAW, 100) == pytest.approx(10)
    assert first_reach(POWER_LAW, 10) == ("reached", pytest.approx(100))


@pytest.mark.parametrize("compute", [9.99, 1000.1])
def test_nothing_is_read_outside_the_measured_range(compute: float) -> None:
    assert perplexity_at(POWER_LAW, compute) is None


def test_a_curve_that_starts_below_the_target_bounds_the_compute() -> None:
    assert first_reach(POWER_LAW, 50) == ("at least", 10)


def test_a_curve_that_stays_above_the_target_has_not_reached_it() -> None:
    assert first_reach(POWER_LAW, 1) == ("not reached", None)


def test_the_first_crossing_counts_when_a_curve_rises_again() -> None:
    assert first_reach([(1, 8), (10, 4), (20, 6), (30, 4)], 4) == ("reached", pytest.approx(10))


@pytest.mark.parametrize(("target", "answer"), [(5, ("at least", 7)), (4, ("at least", 7)), (3, ("not reached", None))])
def test_a_curve_of_one_point_bounds_or_misses(target: float, answer: tuple[str, float | None]) -> None:
    assert first_reach([(7, 4)], target) == answer
    assert perplexity_at([(7, 4)], 7) == pytest.approx(4)
    assert perplexity_at([(7, 4)], 8) is None


def test_an_empty_curve_answers_nothing() -> None:
    assert perplexity_at([], 1) is None
    assert first_reach([], 1) == ("not reached", None)


def test_the_three_costs_of_a_chain(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    small, large = chain.stages
    assert [cumulative(small), marginal(small), family(chain, "S")] == [spent(800)] * 3
    assert [cumulative(large), marginal(large), family(chain, "L")] == [spent(1200), spent(400), spent(1200)]


def test_the_three_costs_of_runs_from_scratch(tmp_path: Path) -> None:
    _, scratch, _ = arms(tmp_path)
    large = scratch.stages[1]
    assert [cumulative(large), marginal(large), family(scratch, "L")] == [spent(1200), spent(1200), spent(2000)]


def test_what_an_arm_inherits_from_another_counts_once_in_its_family(tmp_path: Path) -> None:
    base = write_stage(tmp_path, "b", "S", [16, 8], 800)
    longer = [
        read_stage(write_stage(tmp_path, key, key, [8, 7], tokens, parent=base, before=800))
        for key, tokens in (("M", 80), ("L", 160))
    ]
    assert family(ArmCurve("on", "on", "trained_on", tuple(longer)), "L") == spent(800 + 80 + 160)


def test_costs_wait_for_the_end(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    running = replace(chain.stages[0], finished=False)
    broken = replace(chain, stages=(running, chain.stages[1]))
    assert cumulative(running) is None
    assert marginal(running) is None
    assert family(broken, "L") is None


def test_speed_up_and_saving_at_equal_perplexity(tmp_path: Path) -> None:
    chain, scratch, _ = arms(tmp_path)
    # The scratch run ends at perplexity 6 after 1200 tokens; the chain's stage of that size reads 6 at 33 of its 50
    # steps, 800 + 264 tokens.
    result = at_equal_perplexity(chain.stages[1], scratch.stages[1], "flops")
    assert result is not None
    assert result.state == "reached"
    assert result.chain == pytest.approx(1_064_000)
    assert result.speed_up == pytest.approx(1200 / 1064 - 1)
    assert result.saving == pytest.approx(1 - 1064 / 1200)
    assert result.gap == 0


def test_a_speed_up_of_54_6_percent_is_a_saving_of_35_3_percent(tmp_path: Path) -> None:
    chain, scratch, _ = arms(tmp_path)
    result = at_equal_perplexity(chain.stages[1], scratch.stages[1], "flops")
    assert result is not None
    published = replace(result, arm=300, chain=194)
    assert published.speed_up == pytest.approx(0.546, abs=5e-4)
    assert published.saving == pytest.approx(0.353, abs=5e-4)


def test_a_target_below_the_chain_leaves_a_gap_and_no_speed_up(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    better = read_stage(write_stage(tmp_path, "x", "L", [16, 4.5], 1200))
    result = at_equal_perplexity(chain.stages[1], better, "flops")
    assert result is not None
    assert (result.state, result.speed_up, result.saving) == ("not reached", None, None)
    assert result.gap == pytest.approx(0.5)


def test_a_stage_that_began_below_the_target_gives_a_lower_bound(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    worse = read_stage(write_stage(tmp_path, "x", "L", [16, 14], 1200))
    result = at_equal_perplexity(chain.stages[1], worse, "flops")
    assert result is not None
    assert result.state == "at least"
    assert result.speed_up == pytest.approx(0.5)


def test_a_run_that_ends_within_a_step_of_the_chains_cost_is_taken_at_its_end(tmp_path: Path) -> None:
    chain, scratch, _ = arms(tmp_path)
    one_step_short = read_stage(write_stage(tmp_path, "x", "L", [16, 9, 6.5], 1192))
    for other, perplexity in ((scratch.stages[1], 6), (one_step_short, 6.5)):
        result = at_equal_compute(chain.stages[1], other, "flops")
        assert result is not None
        assert (result.arm, result.interpolated) == (perplexity, False)
        assert result.difference == 5 - perplexity


def test_a_longer_run_is_interpolated_and_a_shorter_one_is_not_extrapolated(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    longer = read_stage(write_stage(tmp_path, "x", "L", [16, 9, 4], 1600))
    shorter = read_stage(write_stage(tmp_path, "y", "L", [16, 9, 4], 1184))
    result = at_equal_compute(chain.stages[1], longer, "flops")
    assert result is not None
    assert result.interpolated
    assert result.arm == pytest.approx(9 * (4 / 9) ** (math.log(1200 / 800) / math.log(2)))
    assert at_equal_compute(chain.stages[1], shorter, "flops") is None


def test_the_ratio_of_costs_ignores_perplexity(tmp_path: Path) -> None:
    chain, scratch, _ = arms(tmp_path)
    assert cost_ratio(chain.stages[0], scratch.stages[1], "flops") == pytest.approx(1.5)


@pytest.mark.parametrize("compare", [at_equal_compute, at_equal_perplexity, cost_ratio])
def test_nothing_is_compared_with_what_was_never_measured(tmp_path: Path, compare: object) -> None:
    chain, _, _ = arms(tmp_path)
    missing = read_stage(write_stage(tmp_path, "x", "L", [], 1200))
    assert callable(compare)
    assert compare(chain.stages[1], missing, "flops") is None
    assert compare(missing, missing, "flops") is None


def test_a_run_under_way_sets_no_target(tmp_path: Path) -> None:
    chain, scratch, _ = arms(tmp_path)
    running: StageCurve = replace(scratch.stages[1], finished=False)
    assert at_equal_perplexity(chain.stages[1], running, "flops") is None
