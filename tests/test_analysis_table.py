"""The comparison as rows, as words and as files."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from test_analysis_curves import spent, write_arms, write_stage

from tfscale.analysis.formats import to_csv, to_json, to_markdown
from tfscale.analysis.table import Row, Table, compare, comparison_table
from tfscale.analysis.words import join, number, verdicts
from tfscale.schedule.arms import Arm


def row(table: Table, arm: str, size: str) -> Row:
    return next(row for row in table.of_size(size) if row.arm == arm)


def with_missing(runs: Path) -> list[Arm]:
    chain, scratch, on = write_arms(runs)
    missing = write_stage(runs, "n", "L", [], 1200)
    running = write_stage(runs, "r", "S", [16, 10], 800, finished=False)
    return [chain, scratch, on, Arm("new", "new arm", "scratch", (running, missing))]


def test_rows_stand_by_size_and_carry_the_three_costs(tmp_path: Path) -> None:
    table = comparison_table(write_arms(tmp_path))
    assert [(row.size, row.arm) for row in table.rows] == [
        ("S", "progressive"),
        ("S", "scratch"),
        ("L", "progressive"),
        ("L", "scratch"),
        ("L", "on"),
    ]
    scratch = row(table, "scratch", "L")
    assert (scratch.cumulative, scratch.marginal, scratch.family) == (spent(1200), spent(1200), spent(2000))
    assert (scratch.key, scratch.chain_key, scratch.perplexity) == ("t2", "c2", 6)
    assert scratch.equal_compute is not None
    assert scratch.equal_compute.difference == -1
    assert table.heldout_tokens == 64


def test_the_chain_is_not_compared_with_itself(tmp_path: Path) -> None:
    chain = row(comparison_table(write_arms(tmp_path)), "progressive", "L")
    assert (chain.chain_key, chain.equal_compute, chain.equal_perplexity, chain.cost_ratio) == (None,) * 4


def test_missing_and_unfinished_runs_have_rows_without_numbers(tmp_path: Path) -> None:
    table = comparison_table(with_missing(tmp_path))
    assert [(row.size, row.status) for row in table.unfinished] == [("S", "unfinished"), ("L", "missing")]
    for unfinished in table.unfinished:
        assert (unfinished.perplexity, unfinished.cumulative, unfinished.family) == (None, None, None)
        assert (unfinished.equal_compute, unfinished.equal_perplexity) == (None, None)


def test_another_chain_is_compared_with_the_first(tmp_path: Path) -> None:
    chain, scratch, _ = write_arms(tmp_path)
    table = comparison_table([chain, replace(scratch, name="other", kind="chain")])
    assert table.chain == "progressive"
    assert row(table, "other", "L").equal_compute is not None


def test_a_comparison_needs_a_chain(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs a chain.*scratch \(scratch\)"):
        comparison_table(write_arms(tmp_path)[1:2])
    with pytest.raises(ValueError, match="none"):
        compare([])


def test_the_measure_decides_what_equal_compute_means(tmp_path: Path) -> None:
    arms = write_arms(tmp_path)
    done = arms[1].stages[1].path / "done.json"
    ended = json.loads(done.read_text())
    ended["totals"]["device_seconds"] *= 2  # the same FLOPs, in twice the time
    done.write_text(json.dumps(ended))
    by_flops, by_time = (row(comparison_table(arms, m), "scratch", "L") for m in ("flops", "device_seconds"))
    assert by_flops.cost_ratio == pytest.approx(1)
    assert by_time.cost_ratio == pytest.approx(2)
    assert by_flops.equal_compute is not None
    assert not by_flops.equal_compute.interpolated
    assert by_time.equal_compute is not None
    assert by_time.equal_compute.interpolated


def test_a_verdict_says_below_or_above_and_by_how_much(tmp_path: Path) -> None:
    arms = write_arms(tmp_path)
    small, large = verdicts(comparison_table(arms))
    assert small == (
        "S: at its 8.00e5 FLOPs, base included, the chain (8.00 perplexity) is below from scratch (9.00) by 1.00."
    )
    assert large.startswith("L: at its 1.20e6 FLOPs, base included, the chain (5.00 perplexity) is below from scratch")
    assert large.endswith("and below small model trained on (7.00) by 2.00.")


def test_a_verdict_says_when_the_chain_loses_draws_or_cannot_be_judged(tmp_path: Path) -> None:
    chain, *_ = write_arms(tmp_path)
    better = Arm("b", "better", "scratch", (write_stage(tmp_path, "b", "L", [16, 4.5], 1200),))
    equal = Arm("e", "equal", "scratch", (write_stage(tmp_path, "e", "L", [16, 5.001], 1200),))
    short = Arm("s", "short", "scratch", (write_stage(tmp_path, "s", "L", [16, 9, 8], 400),))
    shared = Arm("sh", "shared", "scratch", (chain.stages[0], write_stage(tmp_path, "n", "L", [], 1200)))
    small, large = verdicts(comparison_table([chain, better, equal, short, shared]))
    assert small == "S: not compared with shared (the same run)."
    assert "above better (4.50) by 0.50" in large
    assert "level with equal (5.00)" in large
    assert "Not compared with short (measured only at other costs) and shared (missing)." in large


def test_a_verdict_waits_for_the_chain(tmp_path: Path) -> None:
    scratch = write_arms(tmp_path)[1]
    waiting = Arm("c", "chain", "chain", (write_stage(tmp_path, "w", "S", [], 800),))
    assert verdicts(comparison_table([waiting, scratch])) == (
        "S: nothing to compare yet; the chain's run is missing.",
        "L: the chain has no model of this size.",
    )


def test_csv_and_json_hold_the_same_full_precision_numbers_beside_the_stages_keys(tmp_path: Path) -> None:
    table = comparison_table(with_missing(tmp_path))
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    document = json.loads(to_json(table))
    assert len(lines) == len(document["rows"]) == len(table.rows)
    for line, values, original in zip(lines, document["rows"], table.rows, strict=True):
        assert line["key"] == values["key"] == original.key
        for name, value in values.items():
            assert line[name] == ("" if value is None else str(value))
    scratch = document["rows"][4]
    assert scratch["speed_up"] == row(table, "scratch", "L").equal_perplexity.speed_up  # type: ignore[union-attr]
    assert scratch["bits_per_byte"] == math.log(6) / math.log(2) / 4
    assert (scratch["marginal_tokens"], scratch["family_flops"]) == (1200, 2_000_000)
    assert document["rows"][-1]["perplexity"] is None
    assert document["verdicts"] == list(verdicts(table))


def test_markdown_holds_every_row_in_both_tables_and_the_verdicts(tmp_path: Path) -> None:
    table = comparison_table(with_missing(tmp_path))
    text = to_markdown(table, "tiny on text")
    lines = text.splitlines()
    assert lines[0] == "# tiny on text"
    assert "64 held-out tokens" in text
    for size, title in (("S", "progressive"), ("L", "from scratch"), ("L", "new arm")):
        assert sum(line.startswith(f"| {size} | {title} |") for line in lines) == 2
    assert len({line.count("|") for line in lines if line.startswith("| L | from")}) == 2
    assert "| L | from scratch | 928 | 1.20k | 6.000 | 0.646 | -1.000 | +12.8% | +11.3% |" in lines
    assert "| L | new arm | 928 |  | missing |  |  |  |  |" in lines
    assert all(f"- {verdict}" in lines for verdict in verdicts(table))


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (850.4, "850"), (999.6, "1.00k"), (123_551_232, "124M"), (1.3097e9, "1.31B"), (2.1e12, "2.10e12")],
)
def test_numbers_are_shown_in_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_unknown_numbers_are_empty() -> None:
    assert number(None) == number(math.nan) == ""


def test_lists_read_as_prose() -> None:
    assert [join(["a"]), join(["a", "b"]), join(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
