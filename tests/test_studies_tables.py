"""Tables of the studies, against the recorded ones."""

import json

import pytest

from studies.growth_recipes import TABLES, ranking
from studies.growth_rules import Row, report
from studies.tables import mean_and_range, page, table


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of a table without its head."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


@pytest.mark.parametrize("name", ["tune", "rank", "elsewhere_tune", "elsewhere_rank"])
def test_the_recorded_ranking_is_that_of_the_recorded_runs(name: str) -> None:
    runs = json.loads((TABLES / f"{name}.json").read_text(encoding="utf-8"))
    assert rows_of(ranking(runs)) == rows_of((TABLES / f"{name}.md").read_text(encoding="utf-8"))


def test_the_recorded_comparison_of_rules_is_that_of_the_recorded_runs() -> None:
    runs = [Row(**run) for run in json.loads((TABLES / "when.json").read_text(encoding="utf-8"))]
    recorded = (TABLES / "when.md").read_text(encoding="utf-8")
    assert rows_of(report(runs, ["25K", "70K", "147K", "254K"])) == rows_of(recorded)


def test_the_last_letter_aligns_all_further_columns() -> None:
    assert table("lr", ["a", "b", "c"], [["1", "2", "3"]]) == "| a | b | c |\n|---|---:|---:|\n| 1 | 2 | 3 |"
    assert page("Title", "text", "note") == "# Title\n\ntext\n\nnote\n"
    assert mean_and_range([1.0, 3.0], ".1f") == "2.0 [1.0, 3.0]"
