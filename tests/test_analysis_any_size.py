"""The best model from scratch of any size at the chain's compute."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_analysis_curves import write_arms, write_stage
from test_analysis_planted import BUDGET, REPETITIONS, TOLERANCE, few_draws, loss, paired, planted  # noqa: F401

from tfscale.analysis.curves import read_arms
from tfscale.analysis.equal_cost import best_end, best_of_any_size
from tfscale.analysis.figure import comparison_figure
from tfscale.analysis.formats import record
from tfscale.analysis.intervals import LEVEL
from tfscale.analysis.table import compare
from tfscale.analysis.words import verdicts
from tfscale.plan.arms import Arm


def with_small(runs: Path, perplexity: float, tokens: int) -> list[Arm]:
    """The arms of `write_arms`, with one more that has a model of S alone."""
    small = write_stage(runs, "w1", "S", [16, 9, perplexity], tokens)
    return [*write_arms(runs), Arm("well", "well trained", "scratch", (small,))]


def test_a_smaller_model_that_is_better_for_no_more_compute_is_in_the_verdict_and_the_json(tmp_path: Path) -> None:
    table = compare(read_arms(with_small(tmp_path, 4.5, 1000)))
    small, large = (row for row in table.rows if row.arm == table.chain)
    assert small.any_size is not None
    assert (small.any_size.arm, small.any_size.size) == ("scratch", "S"), "the other cost more"
    values = record(large, table)
    assert (values["any_size_arm"], values["any_size_size"]) == ("well", "S")
    assert values["any_size_cost"] == pytest.approx(1e6)
    assert values["chain_minus_any_size"] == pytest.approx(0.5)
    told = (
        "The best model from scratch at this compute has another size: the chain is above well trained of S (4.50) by "
        "0.50, which took 1.00e6 FLOPs."
    )
    assert told in verdicts(table)[1]
    assert "another size" not in verdicts(table)[0]
    assert all(row.any_size is None for row in table.rows if row.arm != table.chain)


def test_it_is_marked_in_the_figure_at_the_chains_compute(tmp_path: Path) -> None:
    axes = comparison_figure(read_arms(with_small(tmp_path, 4.5, 1000)), "title").axes[0]
    (mark,) = [line for line in axes.lines if line.get_label() == "best from scratch of any size"]
    assert mark.get_xdata() == pytest.approx([8e5, 1.2e6])
    assert mark.get_ydata() == pytest.approx([9, 4.5])


def test_runs_of_the_chain_and_unfinished_ones_are_excluded() -> None:
    draw = np.random.default_rng(0)
    chain, arm = planted("chain", draw, 1, 0.0), planted("arm", draw, 1, 0.0)
    assert best_end(chain, {("a", "S"): chain, ("b", "S"): replace(arm, finished=False), ("c", "S"): None}) is None
    assert best_of_any_size(chain, {}) is None
    assert best_of_any_size(None, {("b", "S"): arm}) is None


def test_of_a_run_with_several_budgets_the_last_affordable_end_is_read() -> None:
    arm = planted("arm", np.random.default_rng(0), 1, 0.0)
    budgets = BUDGET * np.array([0.25, 0.5, 4.0])
    ends = replace(arm, log_compute=np.log(budgets)[None], losses=loss(budgets)[None], ends=3)
    best = best_end(planted("chain", np.random.default_rng(1), 1, 0.0), {("a", "S"): replace(arm, decayed=ends)})
    assert best is not None
    assert best.compute == pytest.approx(BUDGET / 2)
    assert best.loss == pytest.approx(float(loss(BUDGET / 2)))


def test_its_interval_holds_the_planted_difference_at_the_stated_rate() -> None:
    hits = []
    truth = math.exp(loss(BUDGET, 1.5)) - math.exp(loss(BUDGET))
    for number in range(REPETITIONS):
        chain, arm = paired(np.random.default_rng(number), 0.01, 0.01, 1.5)
        best = best_of_any_size(chain, {("a", "S"): arm})
        assert best is not None
        assert best.comparison.interval is not None
        hits.append(truth in best.comparison.interval)
    assert abs(np.mean(hits) - LEVEL) <= TOLERANCE
