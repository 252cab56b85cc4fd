"""Data frames of a runs folder: what the rows are, and that each column is documented."""

import re
from pathlib import Path

import pytest
from test_schedule_unreached import finish, plan_of

from tfscale.faults import UserFault
from tfscale.plan.experiments import record
from tfscale.plan.plan import Plan
from tfscale.results import Results, read_results
from tfscale.stage.evaluations import add_evaluation
from tfscale.stage.events import EventLog
from tfscale.stage.result import read_result
from tfscale.totals import Totals

PAGE = Path(__file__).parents[1] / "docs" / "results.md"


@pytest.fixture
def plan(small: list[str]) -> Plan:
    """A finished chain with Transformers, two seeds each, whose last stage has one evaluation after its growth."""
    plan = plan_of(small, "baseline=transformer", "seeds=2")
    finish(*plan.stages)
    child = plan.chain.stages[-1]
    before = read_result(plan.chain.stages[-2].path).totals
    log = EventLog(child.path)
    log.write("eval", step=0, tokens=0, loss=2.5, perplexity=12.2, bits_per_byte=1.9, total_tokens=before.tokens,
              total_flops=before.flops, total_seconds=1.0, total_device_seconds=1.0)  # fmt: skip
    log.close()
    add_evaluation(child.path, Totals(), {"kind": "task", "name": "lambada", "metrics": {"acc": 0.5}})
    record(plan)
    return plan


@pytest.fixture
def results(plan: Plan) -> Results:
    return read_results(plan.runs)


def test_stages_and_evaluations_have_a_row_each_with_arm_and_seed(plan: Plan, results: Results) -> None:
    stages = results.stages
    assert list(stages["key"]) == [stage.key for arm in plan.arms for stage in arm.all_stages]
    assert list(stages["seed"].unique()) == [0, 1]
    assert set(stages["state"]) == {"done"}
    evaluations = results.evaluations[results.evaluations["key"] == plan.chain.stages[-1].key]
    assert list(evaluations["loss"]) == [2.5, 2.0]
    assert list(evaluations["tokens"]) == [0, plan.chain.stages[-1].spec.tokens]
    [benchmark] = results.benchmarks.itertuples()
    assert (benchmark.key, benchmark.name, benchmark.measure, benchmark.value) == (
        plan.chain.stages[-1].key, "lambada", "acc", 0.5,
    )  # fmt: skip


def test_costs_verdicts_and_growths_are_those_of_the_comparison(plan: Plan, results: Results) -> None:
    [comparison] = results.comparisons.values()
    rows = comparison.table.rows
    assert list(results.costs["cumulative_flops"]) == [row.cumulative.flops for row in rows if row.cumulative]
    assert list(results.costs["seeds"].unique()) == ["0 1"]
    compared = [row for row in rows if row.equal_perplexity]
    assert list(results.verdicts["outcome"]) == [row.equal_perplexity.outcome for row in compared]
    assert set(results.verdicts["arm"]) == {"transformer_scratch"}
    assert results.verdicts["verdict"].str.contains("Transformer").all()
    [growth] = results.growths.itertuples()
    assert (growth.key, growth.loss_before, growth.loss_after) == (plan.chain.stages[-1].key, 2.0, 2.5)


def test_every_column_is_documented(results: Results) -> None:
    documented = re.findall(r"`([a-z_*]+)`", PAGE.read_text(encoding="utf-8"))
    patterns = [re.compile(name.replace("*", ".*")) for name in documented]
    frames = ("stages", "evaluations", "benchmarks", "costs", "verdicts", "growths")
    columns = {column for frame in frames for column in getattr(results, frame).columns}
    assert not [column for column in columns if not any(pattern.fullmatch(column) for pattern in patterns)]
    assert {frame for frame in vars(Results) if frame in frames} <= set(documented)


def test_a_folder_without_experiments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="contains no experiment; start one with `tfscale run`"):
        read_results(tmp_path)
