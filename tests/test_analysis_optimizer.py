"""Comparison of arms with and without the optimizer's FLOPs."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from test_analysis_curves import write_arms

from tfscale.analysis.comparison import compare_arms
from tfscale.analysis.curves import ArmCurve, Cost, read_arms
from tfscale.analysis.formats import record, to_csv
from tfscale.analysis.table import Row, Table, compare
from tfscale.analysis.words import basis, verdicts
from tfscale.stage.events import METRICS_FILE
from tfscale.stage.result import DONE_FILE


def with_optimizer(arm: ArmCurve, share: float) -> ArmCurve:
    """Return an arm in which the optimizer took the given share of all FLOPs, or NaN if the share is unknown."""

    def cost(totals: Cost) -> Cost:
        return replace(totals, flops_with_optimizer=totals.flops / (1 - share) if totals.flops else 0)

    stages = [
        replace(
            stage,
            start=stage.start and cost(stage.start),
            evaluations=tuple(replace(each, totals=cost(each.totals)) for each in stage.evaluations),
        )
        for stage in arm.stages
    ]
    return replace(arm, stages=tuple(stages))


def compared(runs: Path, *shares: float) -> Table:
    arms = read_arms(write_arms(runs))
    return compare([with_optimizer(arm, share) for arm, share in zip(arms, shares, strict=True)])


def row(table: Table, arm: str, size: str) -> Row:
    return next(row for row in table.of_size(size) if row.arm == arm)


def test_an_equal_share_for_all_arms_changes_no_saving(tmp_path: Path) -> None:
    scratch = row(compared(tmp_path, 0.2, 0.2, 0.2), "scratch", "L")
    assert scratch.optimizer_share == pytest.approx(0.2)
    assert scratch.equal_perplexity is not None
    assert scratch.with_optimizer is not None
    assert scratch.with_optimizer.saving == pytest.approx(scratch.equal_perplexity.saving)
    assert scratch.with_optimizer.arm == pytest.approx(scratch.equal_perplexity.arm / 0.8)


def test_a_verdict_that_the_optimizer_turns_round_is_told_both_ways(tmp_path: Path) -> None:
    table = compared(tmp_path, 0.25, 0.0, 0.0)
    scratch = row(table, "scratch", "L")
    assert scratch.equal_perplexity is not None
    assert scratch.with_optimizer is not None
    assert scratch.with_optimizer.excess == pytest.approx((1 - scratch.equal_perplexity.saving) / 0.75 - 1)  # type: ignore[operator]
    assert (scratch.equal_perplexity.outcome, scratch.with_optimizer.outcome) == ("saves", "costs more")
    _, large = verdicts(table)
    assert "Compared with from scratch, it saves at least 11.3%; compared with small model trained on, it" in large
    told = large.partition("With the optimizer's FLOPs included, ")[2]
    excess = f"{scratch.with_optimizer.excess:.1%}"
    words = f"it costs at most {excess} more compared with from scratch (without them, it saves at least 11.3%); "
    assert told.startswith(words)
    assert record(scratch, table)["outcome_with_optimizer"] == "costs more"


def test_the_verdicts_that_stay_are_told_beside_those_that_change(tmp_path: Path) -> None:
    told = verdicts(compared(tmp_path, 0.25, 0.0, 0.25))[1]
    assert told.count("without them") == 1
    assert told.endswith("; otherwise, the verdict is the same.")


def test_each_arm_has_its_smallest_and_its_largest_share(tmp_path: Path) -> None:
    chain, scratch, on = read_arms(write_arms(tmp_path))
    small = with_optimizer(replace(scratch, stages=scratch.stages[:1]), 0.031).stages
    large = with_optimizer(replace(scratch, stages=scratch.stages[1:]), 0.12).stages
    table = compare([with_optimizer(chain, 0.0001), replace(scratch, stages=(*small, *large)), on])
    assert (
        "The optimizer's share of a run's FLOPs: progressive below 0.1%, from scratch 3.1% to 12% "
        "and small model trained on 2.0%."
    ) in basis(table)


def test_what_was_not_recorded_is_said_and_not_compared(tmp_path: Path) -> None:
    table = compared(tmp_path, 0.1, math.nan, 0.1)
    scratch = row(table, "scratch", "L")
    assert (scratch.with_optimizer, scratch.optimizer_share) == (None, None)
    small, large = verdicts(table)
    assert small.endswith("is unknown because they were not recorded.")
    assert (
        "included, the verdict for from scratch is unknown because they were not recorded; otherwise, the "
        "verdict is the same."
    ) in large
    assert "The optimizer's FLOPs were not recorded for at least one run of from scratch." in basis(table)
    assert record(scratch, table)["cumulative_flops_with_optimizer"] is None


def test_runs_from_before_they_were_recorded_are_compared_as_ever(tmp_path: Path) -> None:
    arms = write_arms(tmp_path)
    with_them = compare(read_arms(arms))
    for stage in {stage.key: stage for arm in arms for stage in arm.stages}.values():
        metrics, done = stage.path / METRICS_FILE, stage.path / DONE_FILE
        events = [json.loads(line) for line in metrics.read_text().splitlines()]
        kept = [{key: value for key, value in event.items() if "optimizer" not in key} for event in events]
        metrics.write_text("".join(f"{json.dumps(event)}\n" for event in kept))
        end = json.loads(done.read_text())
        del end["totals"]["optimizer_flops"], end["before"]["optimizer_flops"]
        done.write_text(json.dumps(end))
    table = compare(read_arms(arms))
    for old, new in zip(table.rows, with_them.rows, strict=True):
        assert (old.equal_perplexity, old.equal_compute) == (new.equal_perplexity, new.equal_compute)
    assert all("is unknown because they were not recorded." in verdict for verdict in verdicts(table))


def test_the_optimizer_may_be_in_the_cost_unit_itself(tmp_path: Path) -> None:
    arms = write_arms(tmp_path)
    both, without = compare_arms(arms, "both", "flops_with_optimizer").table, compare_arms(arms, "without").table
    scratch = row(both, "scratch", "L")
    assert scratch.equal_perplexity == row(without, "scratch", "L").with_optimizer
    assert scratch.with_optimizer is None
    assert "at 1.22e6 cumulative FLOPs with optimizer, the chain" in verdicts(both)[1]
    assert not any("optimizer's FLOPs included" in verdict for verdict in verdicts(both))
    line = next(line for line in csv.DictReader(io.StringIO(to_csv(both))) if line["key"] == "t2")
    assert float(line["cumulative_flops_with_optimizer"]) == 1020 * 1200
