"""Cumulative and marginal cost."""

from dataclasses import replace
from pathlib import Path

from test_analysis_curves import spent, write_arms

from tfscale.analysis.curves import ArmCurve, Cost, read_arms


def arms(runs: Path) -> tuple[ArmCurve, ArmCurve, ArmCurve]:
    chain, scratch, on = read_arms(write_arms(runs))
    return chain, scratch, on


def test_the_costs_of_a_chain(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    small, large = chain.stages
    assert [small.cumulative, small.marginal] == [spent(800)] * 2
    assert [large.cumulative, large.marginal] == [spent(1200), spent(400)]


def test_the_costs_of_runs_from_scratch(tmp_path: Path) -> None:
    _, scratch, _ = arms(tmp_path)
    large = scratch.stages[1]
    assert [large.cumulative, large.marginal] == [spent(1200)] * 2


def test_costs_wait_for_the_end(tmp_path: Path) -> None:
    chain, _, _ = arms(tmp_path)
    running = replace(chain.stages[0], finished=False)
    assert running.cumulative is None
    assert running.marginal is None


def test_the_mean_cost_of_several_seeds_waits_for_all_of_them() -> None:
    assert Cost.mean([spent(800), spent(1000)]) == spent(900)
    assert Cost.mean([spent(800), None]) is None
    assert Cost.mean([]) is None
