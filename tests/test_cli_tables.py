"""Tests of all tables at any width: no cell is cut, and omitted parts are mentioned."""

import io
import json
import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tfscale.analysis.curves import Cost
from tfscale.analysis.equal_cost import EqualPerplexity
from tfscale.analysis.family import FamilyCost
from tfscale.analysis.intervals import Interval
from tfscale.analysis.table import Row, Table
from tfscale.cli.compare import comparison_rows
from tfscale.cli.console import LOG_WIDTH, FittedTable, console
from tfscale.cli.plan import _arm_tables, _families_table
from tfscale.config.compose import compose
from tfscale.plan.plan import make_plan
from tfscale.predict import families, planned_machine, predict

MEASURED = Path(__file__).parents[1] / "docs" / "measurements" / "progressive_tiny" / "table.json"


def printed(rows: FittedTable, width: int, encoding: str = "utf-8") -> str:
    file = io.BytesIO()
    text = io.TextIOWrapper(file, encoding=encoding, errors="strict", newline="\n")
    Console(file=text, width=width, highlight=False).print(rows)
    text.flush()
    return file.getvalue().decode(encoding)


def measured() -> Table:
    """The comparison in docs/measurements, as the console shows it."""
    document = json.loads(MEASURED.read_text(encoding="utf-8"))
    rows = tuple(_row(values) for values in document["rows"])
    return Table("flops", "progressive", document["heldout_tokens"], rows)


def _row(values: dict[str, Any]) -> Row:
    totals: dict[str, Any] = {
        cost: Cost(**{item.name: values.get(f"{cost}_{item.name}", math.nan) for item in fields(Cost)})
        for cost in ("cumulative", "marginal")
    }
    family = values.get("family", values.get("family_flops"))
    equal = None
    if values["equal_perplexity"] is not None:
        equal = EqualPerplexity(
            state=values["equal_perplexity_state"],
            target=values["equal_perplexity"],
            arm=values["equal_perplexity_arm_cost"],
            chain=values["equal_perplexity_chain_cost"],
            gap=values["equal_perplexity_gap"],
            outcome=values["outcome"],
            excess=values["excess"],
            interval=Interval(
                *(values[f"saving_{end}"] or sign * math.inf for end, sign in (("low", -1), ("high", 1)))
            ),
            over=("documents",),
        )
    return Row(
        **{name: values[name] for name in ("size", "arm", "title", "kind", "status", "parameters", "loss")},
        keys=(values["key"],),
        chain_keys=(values["chain_key"],),
        rests_on=(),
        seeds=(0,),
        perplexity=values["perplexity"],
        perplexity_interval=Interval(values["perplexity_low"], values["perplexity_high"]),
        perplexity_over=("documents",),
        bits_per_byte=values["bits_per_byte"],
        **totals,
        family=family and FamilyCost(family, family, ()),
        equal_compute=None,
        equal_perplexity=equal,
        cost_ratio=None,
    )


@pytest.mark.parametrize("width", [*range(60, 201), LOG_WIDTH])
def test_size_arm_and_perplexity_of_a_comparison_are_whole_at_any_width(width: int) -> None:
    compared = measured()
    shown = printed(comparison_rows(compared, "measured"), width)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    lines = shown.splitlines()
    for row in compared.rows:
        interval = row.perplexity_interval
        assert interval is not None
        [first] = [line for line in lines if line.startswith(f"{row.size} ") and row.title in line]
        assert f"{row.perplexity:.3f}" in first
        below = lines[lines.index(first) + 1]
        assert f"[{interval.low:.3f}, {interval.high:.3f}]" in first + below


def test_a_wide_table_is_whole_and_a_narrower_one_says_what_it_left_out() -> None:
    rows = comparison_rows(measured(), "measured")
    whole = printed(rows, LOG_WIDTH)
    assert "omitted" not in whole
    assert "5.222 [5.079, 5.369]" in whole
    assert "at least +47.1%" in whole
    at_80 = printed(rows, 80)
    assert "speed-up" in at_80.splitlines()[1]
    omitted = "columns omitted to fit the width: params, marginal, family; all columns are in table.csv and --json"
    assert omitted in " ".join(at_80.split())


letters = st.characters(codec="utf-8", categories=["L", "N", "P"], exclude_characters="…")
names = st.text(letters, min_size=1, max_size=14)
cells = st.text(letters, max_size=20)


@settings(max_examples=60)
@given(st.data(), st.integers(60, 200))
def test_no_cell_of_any_table_is_cut(data: st.DataObject, width: int) -> None:
    left = data.draw(st.lists(names, min_size=1, max_size=3))
    right = data.draw(st.lists(names, min_size=1, max_size=6))
    rows = FittedTable("title", left, right, spare=[])
    contents = data.draw(st.lists(st.lists(cells, min_size=len(left + right), max_size=len(left + right)), max_size=4))
    for content in contents:
        rows.add_row(*content)
    kept = printed(rows, width)
    for content in contents:
        for character in "".join(content):
            assert character in kept
    assert "…" not in kept


@settings(max_examples=60)
@given(st.integers(0, 6), st.integers(20, 200))
def test_columns_are_left_out_from_the_last_one_on(count: int, width: int) -> None:
    right = [f"figure{number}" for number in range(count + 1)]
    rows = FittedTable("title", ["name"], right)
    rows.add_row("model", *right)
    shown = printed(rows, width)
    heading = shown.splitlines()[1].split()
    assert heading == ["name", *right][: len(heading)]
    assert len(heading) >= 2
    match = re.search(r"columns omitted to fit the width: (.*); all columns are in --json", " ".join(shown.split()))
    assert (match[1].split(", ") if match else []) == right[len(heading) - 1 :]


def test_a_column_that_says_nothing_is_not_drawn() -> None:
    rows = FittedTable("title", ["name"], ["figure", "price"])
    rows.add_row("model", "1")
    assert "price" not in printed(rows, 80)


def test_what_looks_like_markup_is_text() -> None:
    rows = FittedTable("[b]title[/b]", ["name"], ["figure"])
    rows.add_row("[bold]x[/bold]", "[/]")
    shown = printed(rows, 80)
    assert "[b]title[/b]" in shown
    assert "[bold]x[/bold]" in shown
    assert "[/]" in shown


def test_a_plan_has_fewer_stages_side_by_side_where_there_is_less_room(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = make_plan(compose(["schedule=progressive_1b4", "baseline=scratch", "device=h100_sxm"]))
    machine = planned_machine(planned.experiment)
    predictions = {stage.key: predict(stage.spec, machine, []) for stage in planned.stages}
    totals = families(planned, lambda spec: predict(spec, machine, []))
    for width in (40, 60, 80, 100, 160):
        monkeypatch.setattr(console, "width", width)
        tables = [each for arm in planned.arms for each in _arm_tables(arm, predictions)]
        shown = "".join(printed(each, width) for each in (*tables, _families_table(planned, totals)))
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= width
        for size in ("124M", "354M", "754M", "1.31B", "8620/8620/34480"):
            assert size in shown
        assert (len(tables) == len(planned.arms)) == (width >= 80)
