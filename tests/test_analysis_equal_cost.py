"""What a chain saves, on planted curves whose answers are known."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from test_analysis_curves import write_arms, write_stage

from tfscale.analysis.bootstrap import ReplicateCurves, replicate_curves
from tfscale.analysis.curves import ArmCurve, StageCurve, read_arms, read_stage
from tfscale.analysis.equal_cost import EqualCompute, EqualPerplexity, at_equal_compute, at_equal_perplexity


def arms(runs: Path) -> tuple[ArmCurve, ArmCurve, ArmCurve]:
    chain, scratch, on = read_arms(write_arms(runs))
    return chain, scratch, on


def run(stage: StageCurve) -> ReplicateCurves | None:
    return replicate_curves([stage], "flops")


def equal_perplexity(chain: StageCurve, other: StageCurve, floor: float | None = None) -> EqualPerplexity | None:
    return at_equal_perplexity(run(chain), run(other), floor)


def equal_compute(chain: StageCurve, other: StageCurve) -> EqualCompute | None:
    return at_equal_compute(run(chain), run(other))


def test_speed_up_and_saving_at_equal_perplexity(tmp_path: Path) -> None:
    chain, scratch, _ = arms(tmp_path)
    # The scratch run ends at perplexity 6 after 1200 tokens; the chain's stage of that size reads 6 at 33 of its 50
    # steps, 800 + 264 tokens.
    result = equal_perplexity(chain.stages[1], scratch.stages[1])
    assert result is not None
    assert result.state == "reached"
    assert result.chain == pytest.approx(1_064_000)
    assert result.speed_up == pytest.approx(1200 / 1064 - 1)
    assert result.saving == pytest.approx(1 - 1064 / 1200)
    assert result.gap == 0


def test_a_speed_up_of_54_6_percent_is_a_saving_of_35_3_percent(tmp_path: Path) -> None:
    chain, scratch, _ = arms(tmp_path)
    result = equal_perplexity(chain.stages[1], scratch.stages[1])
    assert result is not None
    published = replace(result, arm=300, chain=194)
    assert published.speed_up == pytest.approx(0.546, abs=5e-4)
    assert published.saving == pytest.approx(0.353, abs=5e-4)


def test_a_target_below_the_chain_leaves_a_gap_and_no_speed_up(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    better = read_stage(write_stage(tmp_path, "x", "L", [16, 4.5], 1200))
    result = equal_perplexity(chain.stages[1], better)
    assert result is not None
    assert (result.state, result.speed_up, result.saving) == ("not reached", None, None)
    assert result.gap == pytest.approx(0.5)


def test_a_stage_that_began_below_the_target_gives_a_lower_bound(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    worse = read_stage(write_stage(tmp_path, "x", "L", [16, 14], 1200))
    result = equal_perplexity(chain.stages[1], worse)
    assert result is not None
    assert result.state == "at least"
    assert result.speed_up == pytest.approx(0.5)


def test_a_run_that_ends_within_a_step_of_the_chains_cost_is_taken_at_its_end(tmp_path: Path) -> None:
    chain, scratch, _ = arms(tmp_path)
    one_step_short = read_stage(write_stage(tmp_path, "x", "L", [16, 9, 6.5], 1192))
    for other, perplexity in ((scratch.stages[1], 6), (one_step_short, 6.5)):
        result = equal_compute(chain.stages[1], other)
        assert result is not None
        assert (result.arm, result.interpolated) == (pytest.approx(perplexity), False)
        assert result.difference == pytest.approx(5 - perplexity)


def test_a_longer_run_is_interpolated_and_a_shorter_one_is_not_extrapolated(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    longer = read_stage(write_stage(tmp_path, "x", "L", [16, 9, 4], 1600))
    shorter = read_stage(write_stage(tmp_path, "y", "L", [16, 9, 4], 1184))
    result = equal_compute(chain.stages[1], longer)
    assert result is not None
    assert result.interpolated
    assert result.arm == pytest.approx(9 * (4 / 9) ** (math.log(1200 / 800) / math.log(2)))
    assert equal_compute(chain.stages[1], shorter) is None


@pytest.mark.parametrize("compare", [equal_compute, equal_perplexity])
def test_nothing_is_compared_with_what_was_never_measured(tmp_path: Path, compare: object) -> None:
    chain, _, _ = arms(tmp_path)
    missing = read_stage(write_stage(tmp_path, "x", "L", [], 1200))
    assert callable(compare)
    assert compare(chain.stages[1], missing) is None
    assert compare(missing, missing) is None


def test_a_run_under_way_sets_no_target(tmp_path: Path) -> None:
    chain, scratch, _ = arms(tmp_path)
    running: StageCurve = replace(scratch.stages[1], finished=False)
    assert equal_perplexity(chain.stages[1], running) is None


def test_with_one_seed_and_no_documents_there_is_no_interval(tmp_path: Path) -> None:
    chain, scratch, _ = arms(tmp_path)
    perplexity = equal_perplexity(chain.stages[1], scratch.stages[1])
    compute = equal_compute(chain.stages[1], scratch.stages[1])
    assert perplexity is not None
    assert compute is not None
    assert (perplexity.interval, perplexity.speed_up_interval, perplexity.over) == (None, None, ())
    assert compute.interval is None


@pytest.mark.parametrize(("floor", "outcome"), [(0.01, "saves"), (0.15, "saves"), (0.2, "no difference")])
def test_a_difference_within_the_noise_floor_is_none(tmp_path: Path, floor: float, outcome: str) -> None:
    chain, scratch, _ = arms(tmp_path)  # they end log(6 / 5) = 0.18 nats apart
    result = equal_perplexity(chain.stages[1], scratch.stages[1], floor)
    assert result is not None
    assert result.outcome == outcome


def test_a_chain_above_an_arm_that_was_there_for_less_costs_more(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    # The arm is at the chain's 5 after 1000 tokens, a power law through (800, 6) and (1200, 6 * 2/3).
    better = read_stage(write_stage(tmp_path, "x", "L", [16, 9, 6, 4], 1200))
    result = equal_perplexity(chain.stages[1], better)
    assert result is not None
    at = 800 * 1.5 ** (math.log(6 / 5) / math.log(6 / 4))
    assert (result.state, result.outcome) == ("not reached", "costs more")
    assert result.excess == pytest.approx(1200 / at - 1)
    assert (result.saving, result.gap) == (None, pytest.approx(1.0))
    level = equal_perplexity(chain.stages[1], better, 0.3)
    assert level is not None
    assert level.outcome == "no difference"


def test_a_chain_that_stops_short_of_a_dearer_arm_is_not_reached_and_never_a_saving(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    dearer = read_stage(write_stage(tmp_path, "x", "L", [16, 4.9], 9600))
    result = equal_perplexity(chain.stages[1], dearer)
    assert result is not None
    assert (result.state, result.outcome, result.saving) == ("not reached", "not reached", None)
    assert result.gap == pytest.approx(0.1)


def test_a_chain_that_got_there_for_more_costs_more(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    cheap = read_stage(write_stage(tmp_path, "x", "L", [16, 10, 6], 600))
    result = equal_perplexity(chain.stages[1], cheap)
    assert result is not None
    assert (result.state, result.outcome) == ("reached", "costs more")
    assert result.excess == pytest.approx(1064 / 600 - 1)
