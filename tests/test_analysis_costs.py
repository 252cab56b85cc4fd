"""The three costs."""

from dataclasses import replace
from pathlib import Path

from test_analysis_curves import spent, write_arms, write_stage

from tfscale.analysis.costs import cumulative, family, marginal, mean
from tfscale.analysis.curves import ArmCurve, read_arms, read_stage


def arms(runs: Path) -> tuple[ArmCurve, ArmCurve, ArmCurve]:
    chain, scratch, on = read_arms(write_arms(runs))
    return chain, scratch, on


def test_the_three_costs_of_a_chain(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    small, large = chain.stages
    assert [cumulative(small), marginal(small), family(chain.stages, "S")] == [spent(800)] * 3
    assert [cumulative(large), marginal(large), family(chain.stages, "L")] == [spent(1200), spent(400), spent(1200)]


def test_the_three_costs_of_runs_from_scratch(tmp_path: Path) -> None:
    _, scratch, _ = arms(tmp_path)
    large = scratch.stages[1]
    assert [cumulative(large), marginal(large), family(scratch.stages, "L")] == [spent(1200), spent(1200), spent(2000)]


def test_what_an_arm_inherits_from_another_counts_once_in_its_family(tmp_path: Path) -> None:
    base = write_stage(tmp_path, "b", "S", [16, 8], 800)
    longer = [
        read_stage(write_stage(tmp_path, key, key, [8, 7], tokens, parent=base, before=800))
        for key, tokens in (("M", 80), ("L", 160))
    ]
    assert family(longer, "L") == spent(800 + 80 + 160)


def test_costs_wait_for_the_end(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    running = replace(chain.stages[0], finished=False)
    assert cumulative(running) is None
    assert marginal(running) is None
    assert family([running, chain.stages[1]], "L") is None


def test_the_mean_cost_of_several_seeds_waits_for_all_of_them() -> None:
    assert mean([spent(800), spent(1000)]) == spent(900)
    assert mean([spent(800), None]) is None
    assert mean([]) is None
