"""The comparison as rows, as words and as files."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from test_analysis_curves import spent, write_arms, write_seeds, write_stage

from tfscale.analysis.answer import answer_of
from tfscale.analysis.comparison import Comparison, compare_arms
from tfscale.analysis.curves import read_arms
from tfscale.analysis.documents import to_latex, to_markdown
from tfscale.analysis.formats import record, to_csv, to_json
from tfscale.analysis.table import Row, Table, compare
from tfscale.analysis.words import basis, verdicts
from tfscale.plan.arms import Arm


def row(table: Table, arm: str, size: str) -> Row:
    return next(row for row in table.of_size(size) if row.arm == arm)


def comparison(arms: list[Arm], assumed_noise: float | None = None) -> Comparison:
    return compare_arms(arms, "tiny on text", assumed_noise=assumed_noise)


def with_missing(runs: Path) -> list[Arm]:
    chain, scratch, on = write_arms(runs)
    missing = write_stage(runs, "n", "L", [], 1200)
    running = write_stage(runs, "r", "S", [16, 10], 800, finished=False)
    return [chain, scratch, on, Arm("new", "new arm", "scratch", (running, missing))]


def test_rows_stand_by_size_and_carry_the_costs(tmp_path: Path) -> None:
    table = compare(read_arms(write_arms(tmp_path)))
    assert [(row.size, row.arm) for row in table.rows] == [
        ("S", "progressive"),
        ("S", "scratch"),
        ("L", "progressive"),
        ("L", "scratch"),
        ("L", "on"),
    ]
    scratch = row(table, "scratch", "L")
    assert (scratch.cumulative, scratch.marginal) == (spent(1200), spent(1200))
    assert scratch.family is not None
    assert scratch.family.low == pytest.approx(2_000_000), "it ended above the chain at both sizes"
    assert (scratch.keys, scratch.chain_keys, scratch.perplexity) == (("t2",), ("c2",), pytest.approx(6))
    assert scratch.equal_compute is not None
    assert scratch.equal_compute.difference == pytest.approx(-1)
    assert table.heldout_tokens == 64


def test_several_seeds_make_one_row_with_means_and_intervals(tmp_path: Path) -> None:
    table = compare(read_arms(write_seeds(tmp_path)))
    assert [(row.size, row.arm) for row in table.rows] == [
        ("S", "progressive"),
        ("S", "scratch"),
        ("L", "progressive"),
        ("L", "scratch"),
    ]
    scratch = row(table, "scratch", "L")
    assert (scratch.seeds, scratch.keys, scratch.chain_keys) == (
        (0, 1, 2),
        ("t20", "t21", "t22"),
        ("c20", "c21", "c22"),
    )
    assert scratch.cumulative == spent(1200)
    losses = [math.log(6 * off) for off in (0.98, 1, 1.02)]
    assert scratch.loss == pytest.approx(sum(losses) / 3)
    assert scratch.perplexity_over == ("seeds",)
    interval = scratch.perplexity_interval
    assert interval is not None
    assert interval.low < 6 < interval.high
    # Student's t with two degrees of freedom, 4.303, on a standard error of 0.02 / sqrt(3)
    assert math.log(interval.high / interval.low) == pytest.approx(2 * 4.303 * 0.02 / math.sqrt(3), rel=0.15)
    assert scratch.equal_perplexity is not None
    assert scratch.equal_perplexity.over == ("seeds",)
    assert scratch.equal_perplexity.noise is None
    assert "[" in verdicts(table)[1]
    assert basis(table)[0] == "[low, high]: 95% intervals over seeds."
    assert not any("floor" in sentence for sentence in basis(table))


def test_a_size_whose_other_seeds_are_missing_is_unfinished_and_has_no_costs(tmp_path: Path) -> None:
    chain, scratch = write_seeds(tmp_path, seeds=1)
    waiting = write_stage(tmp_path, "t29", "L", [], 1200, seed=9)
    table = compare(read_arms([chain, replace(scratch, stages=(*scratch.stages, waiting))]))
    unfinished = row(table, "scratch", "L")
    assert (unfinished.status, unfinished.cumulative, unfinished.family) == ("unfinished", None, None)
    assert unfinished.perplexity == pytest.approx(6)
    assert unfinished.perplexity_interval is None


def test_an_arm_of_one_seed_beside_a_chain_of_three_has_no_interval(tmp_path: Path) -> None:
    chain, scratch = write_seeds(tmp_path)
    single = replace(scratch, stages=tuple(stage for stage in scratch.stages if stage.spec.seed == 0))
    beside = row(table := compare(read_arms([chain, single])), "scratch", "L")
    assert beside.perplexity_interval is None
    assert beside.equal_perplexity is not None
    assert (beside.equal_perplexity.interval, beside.equal_perplexity.over) == (None, ())
    assert "One seed: from scratch." in " ".join(basis(table))
    assert beside.equal_perplexity.noise is not None
    told = "measured over the seeds of the other side: from scratch at S (0."
    assert told in " ".join(basis(table))
    assert record(beside, table)["noise_floor_source"] == "seeds"


def test_the_chain_is_not_compared_with_itself(tmp_path: Path) -> None:
    chain = row(compare(read_arms(write_arms(tmp_path))), "progressive", "L")
    assert chain.chain_keys == ()
    assert (chain.equal_compute, chain.equal_perplexity, chain.cost_ratio) == (None,) * 3


def test_a_row_names_every_stage_that_its_numbers_rest_on(tmp_path: Path) -> None:
    table = compare(read_arms(write_arms(tmp_path)))
    assert set(row(table, "progressive", "L").rests_on) == {"c1", "c2"}
    assert set(row(table, "scratch", "S").rests_on) == {"t1", "c1"}
    # the family's smaller size, and the chain with its base
    assert set(row(table, "scratch", "L").rests_on) == {"t1", "t2", "c1", "c2"}
    assert set(row(table, "on", "L").rests_on) == {"o2", "c1", "c2"}


def test_missing_and_unfinished_runs_have_rows_without_numbers(tmp_path: Path) -> None:
    table = compare(read_arms(with_missing(tmp_path)))
    rows = [row for row in table.rows if row.status != "finished"]
    assert [(row.size, row.status) for row in rows] == [("S", "unfinished"), ("L", "missing")]
    for unfinished in rows:
        assert (unfinished.perplexity, unfinished.cumulative, unfinished.family) == (None, None, None)
        assert (unfinished.equal_compute, unfinished.equal_perplexity) == (None, None)


def test_another_chain_is_compared_with_the_first(tmp_path: Path) -> None:
    chain, scratch, _ = write_arms(tmp_path)
    table = compare(read_arms([chain, replace(scratch, name="other", kind="chain")]))
    assert table.chain == "progressive"
    assert row(table, "other", "L").equal_compute is not None


def test_a_comparison_needs_a_chain(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs a chain.*scratch \(scratch\)"):
        compare(read_arms(write_arms(tmp_path)[1:2]))
    with pytest.raises(ValueError, match="none"):
        compare([])


def test_the_measure_decides_what_equal_compute_means(tmp_path: Path) -> None:
    arms = write_arms(tmp_path)
    done = arms[1].stages[1].path / "done.json"
    ended = json.loads(done.read_text())
    ended["totals"]["device_seconds"] *= 2  # the same FLOPs, in twice the time
    done.write_text(json.dumps(ended))
    by_flops, by_time = (row(compare(read_arms(arms), m), "scratch", "L") for m in ("flops", "device_seconds"))
    assert by_flops.cost_ratio == pytest.approx(1)
    assert by_time.cost_ratio == pytest.approx(2)
    assert by_flops.equal_compute is not None
    assert not by_flops.equal_compute.interpolated
    assert by_time.equal_compute is not None
    assert by_time.equal_compute.interpolated


def test_a_verdict_says_below_or_above_and_by_how_much(tmp_path: Path) -> None:
    arms = write_arms(tmp_path)
    small, large = verdicts(compare(read_arms(arms)))
    assert small == (
        "S: at 8.00e5 cumulative FLOPs, the chain (8.00 perplexity) is below from scratch (9.00) by 1.00. "
        "Compared with from scratch, it saves at least 30.6%. "
        "With the optimizer's FLOPs included, the verdict is the same."
    )
    assert large.startswith("L: at 1.20e6 cumulative FLOPs, the chain (5.00 perplexity) is below from scratch")
    assert "and below small model trained on (7.00) by 2.00." in large
    assert "Compared with from scratch, it saves at least 11.3%; compared with small model trained on" in large
    assert "it saves at least 22.0%." in large


def test_a_verdict_says_when_the_chain_loses_draws_or_cannot_be_judged(tmp_path: Path) -> None:
    chain, *_ = write_arms(tmp_path)
    better = Arm("b", "better", "scratch", (write_stage(tmp_path, "b", "L", [16, 4.5], 1200),))
    equal = Arm("e", "equal", "scratch", (write_stage(tmp_path, "e", "L", [16, 5.001], 1200),))
    short = Arm("s", "short", "scratch", (write_stage(tmp_path, "s", "L", [16, 9, 8], 400),))
    shared = Arm("sh", "shared", "scratch", (chain.stages[0], write_stage(tmp_path, "n", "L", [], 1200)))
    small, large = verdicts(compare(read_arms([chain, better, equal, short, shared])))
    assert small == (
        "S: The best model from scratch at this compute has another size: the chain is equal to short of L (8.00), "
        "which took 4.00e5 FLOPs. Not compared at equal cost with shared (the same run)."
    )
    assert "above better (4.50) by 0.50" in large
    assert "equal to equal (5.00)" in large
    assert "Not compared at equal cost with short (measured only at other costs) and shared (missing)." in large


def test_a_verdict_waits_for_the_chain(tmp_path: Path) -> None:
    scratch = write_arms(tmp_path)[1]
    waiting = Arm("c", "chain", "chain", (write_stage(tmp_path, "w", "S", [], 800),))
    assert verdicts(compare(read_arms([waiting, scratch]))) == (
        "S: nothing to compare yet; the chain's run is missing.",
        "L: the chain has no model of this size.",
    )


def test_csv_and_json_hold_the_same_full_precision_numbers_beside_the_stages_keys(tmp_path: Path) -> None:
    compared = comparison(with_missing(tmp_path))
    table = compared.table
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    document = json.loads(to_json(compared))
    assert len(lines) == len(document["rows"]) == len(table.rows)
    for line, values, original in zip(lines, document["rows"], table.rows, strict=True):
        assert line["key"] == values["key"] == " ".join(original.keys)
        assert line["rests_on"].split() == list(original.rests_on)
        for name, value in values.items():
            assert line[name] == ("" if value is None else str(value))
    scratch = document["rows"][4]
    assert scratch["speed_up"] == row(table, "scratch", "L").equal_perplexity.speed_up  # type: ignore[union-attr]
    assert scratch["bits_per_byte"] == math.log(6) / math.log(2) / 4
    assert (scratch["marginal_tokens"], scratch["family_bound"]) == (1200, "at least")
    assert scratch["family"] == pytest.approx(2_000_000)
    assert document["rows"][-1]["perplexity"] is None
    assert document["verdicts"] == list(verdicts(table))
    assert document["answer"]["sentence"] == answer_of(compared).sentence
    assert {(each["arm"], each["measure"]) for each in document["families"]} == {
        ("scratch", measure) for measure in ("flops", "flops_with_optimizer", "device_seconds")
    }
    assert document["basis"] == list(basis(table))
    (growth,) = document["growths"]
    assert (growth["key"], growth["parent"], growth["size"]) == ("c2", "c1", "L")
    assert growth["loss_after"] - growth["loss_before"] == pytest.approx(math.log(12 / 8))
    assert growth["tokens_to_recover"] == 136  # the first evaluation below 8, at 17 of 50 steps


def test_markdown_holds_every_row_in_both_tables_and_the_verdicts(tmp_path: Path) -> None:
    compared = comparison(with_missing(tmp_path))
    table, text = compared.table, to_markdown(compared)
    lines = text.splitlines()
    assert lines[0] == "# tiny on text"
    assert "64 validation tokens" in text
    for size, title in (("S", "progressive"), ("L", "from scratch"), ("L", "new arm")):
        assert sum(line.startswith(f"| {size} | {title} |") for line in lines) == 2
    assert lines.index(answer_of(compared).sentence) < lines.index(f"- {verdicts(table)[0]}")
    assert len({line.count("|") for line in lines if line.startswith("| L | from")}) == 2
    assert "| L | from scratch | 928 | 1.20K | 6.000 | 0.646 | -1.000 | at least +12.8% | at least +11.3% |" in lines
    assert "| L | new arm | 928 |  | missing |  |  |  |  |" in lines
    assert all(f"- {verdict}" in lines for verdict in verdicts(table))


def test_latex_holds_every_row_escaped(tmp_path: Path) -> None:
    text = to_latex(compare_arms(with_missing(tmp_path), "tiny_chain, 5% of text"))
    assert r"\caption{tiny\_chain, 5\% of text, 64 validation tokens." in text
    assert r"L & from scratch & 928 & 1.20K & 6.000 & 0.646 & -1.000 & at least +12.8\% & at least +11.3\% \\" in text
    body = text[text.index("\\midrule") : text.index("\\bottomrule")]
    assert body.count(" & ") == 8 * len(comparison(with_missing(tmp_path / "again")).table.rows)
    assert text.count("\\midrule") == 2


def test_what_is_not_known_of_noise_is_said(tmp_path: Path) -> None:
    arms = write_arms(tmp_path)
    (seeds, floor, _, tuning) = basis(comparison(arms).table)
    assert seeds.startswith("One seed each")
    assert "No noise floor is set (analysis.noise_floor)" in floor
    assert "is not stated (analysis.tuning_flops)" in tuning
    assert "assumed (analysis.noise_floor)" in basis(comparison(arms, assumed_noise=0.2).table)[1]
    verdict = verdicts(comparison(arms, 0.2).table)[1].lower()
    assert "compared with from scratch, there is no difference within noise" in verdict


def test_what_tuning_has_cost_is_said_and_is_in_no_cost(tmp_path: Path) -> None:
    arms = write_arms(tmp_path)
    plain, stated = comparison(arms), compare_arms(arms, "tiny on text", tuning_flops=3e12)
    chain = [row.cumulative for row in stated.table.rows if row.arm == stated.table.chain]
    assert chain[-1] is not None
    told = basis(stated.table)[-1]
    assert told.startswith(f"Tuning the learning rates took 3.00e12 FLOPs ({3e12 / chain[-1].flops:.1f} times the")
    assert stated.table.rows == plain.table.rows
    assert json.loads(to_json(stated))["tuning_flops"] == 3e12
