"""The figure, and the comparison's files."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_analysis_curves import write_arms, write_stage

from tfscale.analysis.curves import read_arms
from tfscale.analysis.figure import comparison_figure, render
from tfscale.analysis.report import write_comparison
from tfscale.schedule.arms import Arm


def lines(figure: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in figure.axes[0].lines if not line.get_label().startswith("_")}


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_each_arm_is_a_line_through_the_ends_of_its_runs(tmp_path: Path) -> None:
    drawn = lines(comparison_figure(read_arms(write_arms(tmp_path)), "title"))
    assert [list(axis) for axis in drawn["progressive"].get_data()] == [[800_000, 1_200_000], [8, 5]]
    assert [list(axis) for axis in drawn["from scratch"].get_data()] == [[800_000, 1_200_000], [9, 6]]
    assert [list(axis) for axis in drawn["small model trained on"].get_data()] == [[1_200_000], [7]]


def test_arms_differ_in_marker_and_line_style_as_well_as_in_colour(tmp_path: Path) -> None:
    drawn = lines(comparison_figure(read_arms(write_arms(tmp_path)), "title"))
    arms = [drawn[title] for title in ("progressive", "from scratch", "small model trained on")]
    for look in ("get_marker", "get_linestyle", "get_color"):
        assert len({getattr(line, look)() for line in arms}) == 3


def test_sizes_are_named_at_the_chains_ends(tmp_path: Path) -> None:
    assert [text for text in texts(comparison_figure(read_arms(write_arms(tmp_path)), "")) if text in "SL"] == [
        "S",
        "L",
    ]


def test_runs_that_ended_elsewhere_are_named_too(tmp_path: Path) -> None:
    chain, *_ = write_arms(tmp_path)
    other = Arm("x", "x", "scratch", (write_stage(tmp_path, "x", "L", [16, 6], 2400),))
    assert texts(comparison_figure(read_arms([chain, other]), "")).count("L") == 2


def test_growth_off_the_scale_is_marked_on_the_edge_with_its_perplexity(tmp_path: Path) -> None:
    figure = comparison_figure(read_arms(write_arms(tmp_path)), "title")
    axes = figure.axes[0]
    (mark,) = [line for line in axes.lines if line.get_label() == "right after growth, untrained"]
    assert list(mark.get_ydata()) == [axes.get_ylim()[1]]
    assert axes.get_ylim()[1] < 12
    assert "12" in texts(figure)
    assert "off the scale" in figure.get_supxlabel()


def test_growth_that_changes_nothing_is_marked_where_it_is(tmp_path: Path) -> None:
    small = write_stage(tmp_path, "c1", "S", [16, 10, 8], 800)
    large = write_stage(tmp_path, "c2", "L", [8, 7, 6], 400, parent=small, before=800, grown=True)
    figure = comparison_figure(read_arms([Arm("c", "chain", "chain", (small, large))]), "title")
    mark = lines(figure)["right after growth, untrained"]
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([800_000], [8])
    assert "off the scale" not in figure.get_supxlabel()


def test_unfinished_runs_are_named_in_the_caption(tmp_path: Path) -> None:
    chain, *_ = write_arms(tmp_path)
    waiting = Arm("n", "new arm", "scratch", (write_stage(tmp_path, "n", "L", [], 1200),))
    caption = " ".join(comparison_figure(read_arms([chain, waiting]), "title").get_supxlabel().split())
    assert "Not finished: new arm (L)." in caption


def test_every_end_lies_inside_the_frame_with_ticks_to_read_it_by(tmp_path: Path) -> None:
    axes = comparison_figure(read_arms(write_arms(tmp_path)), "title").axes[0]
    for line in lines(axes.figure).values():
        for x, y in zip(*line.get_data(), strict=True):
            assert axes.get_xlim()[0] < x < axes.get_xlim()[1]
            assert axes.get_ylim()[0] < y <= axes.get_ylim()[1]
    assert len(axes.get_yticks()) >= 3
    assert len(axes.get_xticks()) >= 3


def test_nothing_measured_is_nothing_to_draw(tmp_path: Path) -> None:
    arm = Arm("c", "chain", "chain", (write_stage(tmp_path, "n", "S", [], 800),))
    with pytest.raises(ValueError, match="nothing to draw"):
        comparison_figure(read_arms([arm]), "title")


def test_the_same_measurements_give_the_same_bytes(tmp_path: Path) -> None:
    arms = read_arms(write_arms(tmp_path))
    for kind in ("png", "svg"):
        assert render(comparison_figure(arms, "t"), kind) == render(comparison_figure(arms, "t"), kind)


def test_a_comparison_is_five_files_and_leaves_nothing_aside(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "comparison"
    written = write_comparison(write_arms(tmp_path / "runs"), folder, "tiny on text")
    assert {path.name for path in folder.iterdir()} == {
        "figure.png",
        "figure.svg",
        "table.csv",
        "table.json",
        "table.md",
    }
    assert written.png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in written.svg.read_text()
    assert json.loads(written.json.read_text())["rows"][0]["key"] == "c1"
    assert written.csv.read_text().count("\n") == 6
    assert written.markdown.read_text().startswith("# tiny on text")
    assert len(written.table.rows) == 5


def test_a_comparison_that_fails_leaves_the_old_one_alone(tmp_path: Path) -> None:
    arms = write_arms(tmp_path / "runs")
    written = write_comparison(arms, tmp_path / "out", "old")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (arms[0].stages[0].path / "done.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        write_comparison(arms, tmp_path / "out", "new")
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert written.png in before


def test_a_table_needs_no_matplotlib_and_a_figure_no_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys, tfscale.analysis.report; assert 'matplotlib' not in sys.modules; "
        "from tfscale.analysis.curves import *; from tfscale.analysis.figure import *; "
        "e = Evaluation(1, 8, Totals(8, 8, 8, 8), 1.0, 2.7, 1.0); "
        "s = StageCurve('S', 'k', None, False, 1, 1, NOTHING, (e,), True); "
        "render(comparison_figure([ArmCurve('c', 'c', 'chain', (s,))], 't'), 'png'); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_title_names_the_heldout_tokens(tmp_path: Path) -> None:
    svg = write_comparison(write_arms(tmp_path / "runs"), tmp_path / "out", "tiny on text").svg.read_text()
    assert "tiny on text, 64 held-out tokens" in svg
