"""Costs and readings of arms with a trunk and branches, with planted numbers."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from test_analysis_curves import FLOPS_A_TOKEN, spent, write_stage
from test_analysis_planted import BUDGET, TOLERANCE, coverage, few_draws, loss, planted, repeat  # noqa: F401

from tfscale.analysis.bootstrap import ReplicateCurves, replicate_curves
from tfscale.analysis.curves import ArmCurve, read_arms
from tfscale.analysis.equal_cost import EqualPerplexity, at_equal_compute, at_equal_perplexity
from tfscale.analysis.growths import growths
from tfscale.analysis.intervals import LEVEL
from tfscale.analysis.table import compare
from tfscale.analysis.words import cost_clause, saving
from tfscale.plan.arms import Arm


def write_chain(runs: Path) -> Arm:
    """A trunk of S (800 tokens) and L (400 more), with branches of a fifth."""
    small = write_stage(runs, "t1", "S", [16, 12, 10], 800)
    large = write_stage(runs, "t2", "L", [14, 9, 8], 400, parent=small, before=800, grown=True)
    models = (
        write_stage(runs, "b1", "S", [10, 8], 160, parent=small, before=800),
        write_stage(runs, "b2", "L", [8, 6], 80, parent=large, before=1200),
    )
    return Arm("progressive", "progressive", "chain", models, trunk=(small, large))


def write_scratch(runs: Path, first: float, second: float, third: float) -> Arm:
    """A trunk of L alone, which branches at 480, 960 and 1280 tokens, with these decayed perplexities. The second is at
    the budget of S, and the third at that of L."""
    trunk, branches, before = [], [], 0
    for number, (tokens, decayed) in enumerate([(400, first), (400, second), (264, third)]):
        parent = trunk[-1] if trunk else None
        worse = 2 * decayed
        trunk.append(write_stage(runs, f"s{number}", "L", [30, worse], tokens, parent=parent, before=before))
        before += tokens
        tail = 1280 - before if number == 2 else tokens // 5 * (number + 1)
        branches.append(write_stage(runs, f"d{number}", "L", [worse, decayed], tail, parent=trunk[-1], before=before))
    return Arm("scratch", "from scratch", "scratch", (branches[2],), tuple(trunk), tuple(branches[:2]))


def read(*arms: Arm) -> list[ArmCurve]:
    return list(read_arms(arms))


def curves_of(arm: ArmCurve, size: str) -> ReplicateCurves:
    found = replicate_curves(arm.replicates(size), "flops")
    assert found is not None
    return found


def test_a_later_model_pays_for_the_trunk_and_its_own_branch(tmp_path: Path) -> None:
    [chain] = read(write_chain(tmp_path))
    small, large = chain.stages
    assert [small.cumulative, small.marginal] == [spent(960)] * 2
    assert large.cumulative == spent(800 + 400 + 80)
    assert asdict(large.marginal) == pytest.approx(asdict(spent(400 + 80)))  # type: ignore[arg-type]


def test_runs_from_scratch_pay_for_their_trunk_up_to_their_budget_and_not_for_readings(tmp_path: Path) -> None:
    [arm] = read(write_scratch(tmp_path, 9, 8, 7))
    assert [arm.stages[0].cumulative, arm.stages[0].marginal] == [spent(1280)] * 2


def test_a_model_is_one_run_of_its_trunk_and_its_branch(tmp_path: Path) -> None:
    [chain] = read(write_chain(tmp_path))
    small, large = chain.stages
    assert [e.perplexity for e in large.evaluations] == [14, 9, 8, 6]
    assert [e.tokens for e in large.evaluations] == [0, 200, 400, 480]
    assert [e.totals.tokens for e in large.evaluations] == [800, 1000, 1200, 1280]
    assert (large.key, large.parent, large.grown) == ("b2", "t1", True)
    assert small.start == spent(0)


def test_growths_are_read_from_the_trunk(tmp_path: Path) -> None:
    [chain] = read(write_chain(tmp_path))
    [event] = growths(chain)
    assert (event.parent, event.key) == ("t1", "t2")
    assert np.exp([event.loss_before, event.loss_after, event.loss_end]) == pytest.approx([10, 14, 8])


def test_rows_rest_on_the_trunk_and_on_all_readings(tmp_path: Path) -> None:
    table = compare(read(write_chain(tmp_path), write_scratch(tmp_path, 9, 8, 7)))
    chain, scratch = table.of_size("L")
    assert set(chain.rests_on) == {"t1", "b1", "t2", "b2"}
    assert set(scratch.rests_on) == {
        "t1",
        "b1",
        "t2",
        "b2",
        *(f"{kind}{number}" for kind in "sd" for number in range(3)),
    }


def test_unfinished_branches_leave_their_model_unfinished_and_its_readings_unused(tmp_path: Path) -> None:
    arm = write_scratch(tmp_path, 9, 8, 7)
    (arm.readings[0].path / "done.json").unlink()
    [curve] = read(arm)
    assert curve.stages[0].finished
    assert curves_of(curve, "L").decayed is None
    (arm.stages[0].path / "done.json").unlink()
    [curve] = read(arm)
    assert curve.stages[0].cumulative is None


def test_at_equal_compute_both_models_are_decayed(tmp_path: Path) -> None:
    chain, scratch = read(write_chain(tmp_path), write_scratch(tmp_path, 9, 8, 7))
    equal = at_equal_compute(curves_of(chain, "L"), curves_of(scratch, "L"))
    assert equal is not None
    assert not equal.interpolated
    assert equal.difference == pytest.approx(6 - 7)


def equal(tmp_path: Path, *decayed: float) -> EqualPerplexity:
    chain, scratch = read(write_chain(tmp_path), write_scratch(tmp_path, *decayed))
    found = at_equal_perplexity(curves_of(chain, "L"), curves_of(scratch, "L"), None)
    assert found is not None
    return found


def test_an_arm_that_was_better_is_read_between_its_decayed_ends(tmp_path: Path) -> None:
    found = equal(tmp_path, 9, 6, 5)
    assert found.outcome == "costs more"
    assert found.arm == pytest.approx(960 * FLOPS_A_TOKEN), "its trunk was at twice the perplexity there"
    assert found.chain == pytest.approx(1280 * FLOPS_A_TOKEN)
    assert found.target == pytest.approx(6)
    assert found.excess == pytest.approx(1280 / 960 - 1)
    assert (found.exact, found.state) == (True, "reached")
    assert cost_clause(found) == "it costs 33.3% more"
    assert saving(found) == "-33.3%"


def test_an_arm_that_was_better_at_every_budget_gives_a_bound(tmp_path: Path) -> None:
    found = equal(tmp_path, 5, 4.5, 4)
    assert (found.exact, found.state) == (False, "at most")
    assert found.excess > 1280 / 480 - 1, "it was better during its first run, before the end"
    assert cost_clause(found).startswith("it costs at least ")
    assert saving(found).startswith("at most -")


def test_an_arm_that_never_got_there_is_read_at_its_last_end(tmp_path: Path) -> None:
    found = equal(tmp_path, 9, 8, 7)
    assert (found.outcome, found.state, found.exact) == ("saves", "reached", False)
    assert cost_clause(found).startswith("it saves at least ")
    assert found.arm == pytest.approx(1280 * FLOPS_A_TOKEN)
    assert found.saving is not None
    assert 0 < found.saving < 1 - 1200 / 1280, "the chain got there while its rate decayed"


def read_in(draw: np.random.Generator, noise: float, head_start: float) -> EqualPerplexity:
    """A chain, and an arm with ends at a quarter to four times the chain's cost. The evaluations of both during
    training are far above what a run that ended there would have reached."""
    chain, arm = planted("chain", draw, 3, noise, head_start), planted("arm", draw, 3, noise)
    during = np.append(np.full(chain.losses.shape[1] - 1, 0.6), 0.0)
    budgets = np.geomspace(BUDGET / 4, 4 * BUDGET, 4)
    shifts = arm.losses[:, -1:] - loss(BUDGET)
    ends = replace(arm, log_compute=np.log(np.tile(budgets, (3, 1))), losses=loss(budgets) + shifts, ends=4)
    chain, arm = replace(chain, losses=chain.losses + during), replace(arm, losses=arm.losses + 0.3, decayed=ends)
    found = at_equal_perplexity(chain, arm, None)
    assert found is not None
    return found


@pytest.mark.parametrize("head_start", [0.5, 1.6])
def test_a_planted_cost_is_read_exactly_whichever_is_cheaper(head_start: float) -> None:
    found = read_in(np.random.default_rng(0), 0.0, head_start)
    assert found.exact
    assert found.saving == pytest.approx(1 - 1 / head_start)
    assert found.outcome == ("costs more" if head_start < 1 else "saves")


def test_intervals_of_decayed_readings_hold_the_planted_cost_at_the_stated_rate() -> None:
    results = repeat(lambda draw: read_in(draw, 0.003, 0.5))
    assert abs(coverage(results, -1) - LEVEL) <= TOLERANCE
    outcomes = [each.outcome for each in results]
    assert outcomes.count("costs more") > 0.9 * len(outcomes)
    assert "saves" not in outcomes
