"""The primary comparison, which is declared before the runs."""

import json
from pathlib import Path

import pytest
from test_analysis_curves import write_arms

from tfscale.analysis.comparison import Comparison, compare_arms
from tfscale.analysis.documents import to_latex, to_markdown
from tfscale.analysis.formats import to_json
from tfscale.analysis.words import basis, verdicts
from tfscale.config.compose import compose
from tfscale.faults import UserFault
from tfscale.plan.plan import make_plan


def compared(runs: Path, primary: tuple[str, str] | None) -> Comparison:
    return compare_arms(write_arms(runs), "tiny on text", primary=primary)


def test_it_is_marked_and_all_others_are_secondary(tmp_path: Path) -> None:
    comparison = compared(tmp_path, ("L", "scratch"))
    small, large = verdicts(comparison.table)
    assert small.startswith("S (secondary): at ")
    assert large.startswith("L (primary: from scratch): at ")
    assert basis(comparison.table)[0].startswith("Primary comparison: from scratch at L. The other 2 are secondary: ")
    document = json.loads(to_json(comparison))
    assert document["primary"] == {"size": "L", "arm": "scratch"}
    assert [row["rank"] for row in document["rows"]] == [None, "secondary", None, "primary", "secondary"]
    assert to_markdown(comparison).count("| L | from scratch (primary) |") == 1
    assert "L & from scratch (primary) &" in to_latex(comparison)


def test_an_arm_that_is_not_compared_leaves_all_secondary(tmp_path: Path) -> None:
    table = compared(tmp_path, ("L", "transformer_scratch")).table
    assert "(analysis.primary: transformer_scratch at L) is not among these" in basis(table)[0]
    assert {table.rank(row) for row in table.rows} == {None, "secondary"}


def test_without_one_nothing_is_ranked_in_words(tmp_path: Path) -> None:
    table = compared(tmp_path, None).table
    assert verdicts(table)[0].startswith("S: at ")
    assert not any("rimary" in sentence for sentence in basis(table))


def test_its_size_must_be_one_of_the_schedule() -> None:
    assert make_plan(compose(["analysis.primary.size=70K"])).experiment.analysis.primary.size == "70K"
    with pytest.raises(UserFault, match=r"analysis\.primary\.size=71K: must be a size of the schedule; try one of 25K"):
        make_plan(compose(["analysis.primary.size=71K"]))
