"""The figure, and the comparison's files."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from test_analysis_curves import write_arms, write_seeds, write_stage

from tfscale.analysis.caption import caption, regime
from tfscale.analysis.comparison import compare_arms
from tfscale.analysis.curves import ArmCurve, read_arms
from tfscale.analysis.documents import write_comparison
from tfscale.analysis.figure import comparison_figure
from tfscale.analysis.figure_family import family_figure
from tfscale.analysis.reference import published_arms
from tfscale.analysis.style import FIGURE_KINDS, render
from tfscale.config.folders import conf_dir
from tfscale.plan.arms import Arm


def lines(figure: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in main_axes(figure).lines if not line.get_label().startswith("_")}


def write(arms: list[Arm], folder: Path, title: str) -> dict[str, Path]:
    return {path.name: path for path in write_comparison(compare_arms(arms, title), folder)}


def main_axes(figure: Any) -> Any:
    """The axes of the curves; those of the growths may stand before them."""
    return next(axes for axes in figure.axes if axes.get_ylabel() == "validation perplexity")


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in main_axes(figure).texts]


def test_each_arm_is_a_line_through_the_ends_of_its_runs(tmp_path: Path) -> None:
    drawn = lines(comparison_figure(read_arms(write_arms(tmp_path)), "title"))
    ends = {"progressive": [8, 5], "from scratch": [9, 6], "small model trained on": [7]}
    for title, perplexities in ends.items():
        compute, perplexity = drawn[title].get_data()
        assert list(compute) == pytest.approx([800_000, 1_200_000][-len(perplexities) :])
        assert list(perplexity) == pytest.approx(perplexities)


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
    axes = main_axes(figure)
    (mark,) = [line for line in axes.lines if line.get_label() == "right after growth, untrained"]
    assert list(mark.get_ydata()) == [axes.get_ylim()[1]]
    assert axes.get_ylim()[1] < 12
    assert "12" in texts(figure)
    assert "beyond the axis" in " ".join(figure.get_supxlabel().split())


def test_growth_that_changes_nothing_is_marked_where_it_is(tmp_path: Path) -> None:
    small = write_stage(tmp_path, "c1", "S", [16, 10, 8], 800)
    large = write_stage(tmp_path, "c2", "L", [8, 7, 6], 400, parent=small, before=800, grown=True)
    figure = comparison_figure(read_arms([Arm("c", "chain", "chain", (small, large))]), "title")
    mark = lines(figure)["right after growth, untrained"]
    assert (*mark.get_xdata(), *mark.get_ydata()) == (pytest.approx(800_000), pytest.approx(8))
    assert "Numbers at the upper edge" not in figure.get_supxlabel()


def test_unfinished_runs_are_named_in_the_caption(tmp_path: Path) -> None:
    chain, *_ = write_arms(tmp_path)
    waiting = Arm("n", "new arm", "scratch", (write_stage(tmp_path, "n", "L", [], 1200),))
    caption = " ".join(comparison_figure(read_arms([chain, waiting]), "title").get_supxlabel().split())
    assert "Not finished: new arm (L)." in caption


def test_the_caption_says_which_sizes_have_one_seed(tmp_path: Path) -> None:
    chain, scratch = write_seeds(tmp_path)
    done = [stage for stage in scratch.stages if stage.size == "S" or stage.spec.seed == 0]
    waiting = [write_stage(tmp_path, f"n{seed}", "L", [], 1200, seed=seed) for seed in (1, 2)]
    few = Arm("scratch", "from scratch", "scratch", (*done, *waiting))
    words = " ".join(comparison_figure(read_arms([chain, few]), "title").get_supxlabel().split())
    assert "One seed, so no interval over seeds: from scratch (L)." in words
    assert "1 to 3 seeds" in words
    assert "Not finished" not in words


def test_every_end_lies_inside_the_frame_with_ticks_to_read_it_by(tmp_path: Path) -> None:
    axes = main_axes(comparison_figure(read_arms(write_arms(tmp_path)), "title"))
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
    for kind in FIGURE_KINDS:
        assert render(comparison_figure(arms, "t"), kind) == render(comparison_figure(arms, "t"), kind)


NAMES = {
    *(f"{name}.{kind}" for name in ("figure", "figure_time", "figure_tokens", "costs") for kind in FIGURE_KINDS),
    *(f"table.{kind}" for kind in ("csv", "json", "md", "tex")),
    "caption.txt",
}


def test_a_comparison_is_figures_and_tables_and_leaves_nothing_aside(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "comparison"
    written = write(write_arms(tmp_path / "runs"), folder, "tiny on text")
    assert {path.name for path in folder.iterdir()} == set(written) == NAMES
    for name, path in written.items():
        start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}.get(path.suffix, b"")
        assert path.read_bytes().startswith(start), name
    assert json.loads(written["table.json"].read_text())["rows"][0]["key"] == "c1"
    assert written["table.csv"].read_text().count("\n") == 6
    assert written["table.md"].read_text().startswith("# tiny on text")


def test_a_comparison_that_fails_leaves_the_old_one_alone(tmp_path: Path) -> None:
    arms = write_arms(tmp_path / "runs")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "figure.png").write_text("old")
    (arms[0].stages[0].path / "done.json").write_text("{")
    with pytest.raises(ValueError, match="the file is not a valid result"):
        write(arms, tmp_path / "out", "new")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"figure.png": "old"}


def test_a_table_needs_no_matplotlib_and_a_figure_no_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys, tfscale.analysis.documents; assert 'matplotlib' not in sys.modules; "
        "from tfscale.analysis.curves import *; from tfscale.analysis.figure import *; "
        "from tfscale.analysis.style import render; "
        "e = Evaluation(1, 8, Cost(8, 8, 9, 8, 8), 1.0, 2.7, 1.0); "
        "s = StageCurve('S', 'k', None, False, 1, 1, NO_COST, (e,), True); "
        "render(comparison_figure([ArmCurve('c', 'c', 'chain', (s,))], 't'), 'png'); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_title_names_the_heldout_tokens(tmp_path: Path) -> None:
    compared = compare_arms(write_arms(tmp_path), "tiny on text")
    (legend,) = comparison_figure(compared.arms, compared.heading).legends
    assert legend.get_title().get_text() == "tiny on text, 64 validation tokens"


def test_seeds_are_bands_about_the_mean_curve(tmp_path: Path) -> None:
    figure = comparison_figure(read_arms(write_seeds(tmp_path)), "title")
    assert list(lines(figure)["progressive"].get_ydata()) == pytest.approx([8, 5], rel=1e-3)
    assert len(main_axes(figure).collections) == 4  # one a size of each arm
    assert "Bands: 95% intervals over seeds (0, 1, 2)." in " ".join(figure.get_supxlabel().split())
    single = comparison_figure(read_arms(write_arms(tmp_path / "single")), "title")
    assert len(main_axes(single).collections) == 0
    assert "Bands" not in single.get_supxlabel()


def test_each_growth_is_beside_the_curves_against_the_loss_before_it(tmp_path: Path) -> None:
    figure = comparison_figure(read_arms(write_arms(tmp_path)), "title")
    (beside,) = [axes for axes in figure.axes if axes.get_xlabel() == "size after growth"]
    heights = sorted({round(float(y), 6) for line in beside.lines for y in line.get_ydata()})
    assert heights == pytest.approx([math.log(5 / 8), 0, math.log(12 / 8)])


def test_published_points_say_whether_a_table_or_a_figure_was_read(tmp_path: Path) -> None:
    reference = OmegaConf.to_container(OmegaConf.load(conf_dir() / "reference" / "tokenformer_paper.yaml"))
    published = published_arms(reference)  # type: ignore[arg-type]
    figure = comparison_figure(read_arms(write_arms(tmp_path)), "title", "tokens", published=published)
    titles = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sum(title.startswith("published: ") for title in titles) == len(published)
    faces = {
        line.get_markerfacecolor(): len(line.get_xdata())
        for line in main_axes(figure).lines
        if line.get_label() == "published: Transformer from scratch, as plotted"
    }
    assert faces == {"#BBBBBB": 2}
    assert "published perplexity from a table; grey: from a figure" in " ".join(figure.get_supxlabel().split())


def test_published_points_without_a_cost_in_the_measure_are_not_drawn(tmp_path: Path) -> None:
    reference = OmegaConf.to_container(OmegaConf.load(conf_dir() / "reference" / "tokenformer_paper.yaml"))
    published = published_arms(reference)  # type: ignore[arg-type]
    figure = comparison_figure(read_arms(write_arms(tmp_path)), "title", "flops", published=published)
    assert not [text for text in figure.legends[0].get_texts() if "published" in text.get_text()]


def test_fits_are_named_as_such(tmp_path: Path) -> None:
    scratch = [
        write_stage(tmp_path, f"f{n}", f"S{n}", [20, *(9 - 0.5 * n - 0.4 * i for i in range(6))], 800 * 2**n)
        for n in range(6)
    ]
    compared = compare_arms([write_arms(tmp_path)[0], Arm("f", "flat", "scratch", tuple(scratch))], "t")
    (law,) = compared.laws
    assert law.arm == "f"
    drawn = lines(comparison_figure(compared.arms, "t", laws=compared.laws))
    assert "fit to flat" in drawn
    assert max(drawn["fit to flat"].get_xdata()) <= law.frontier.compute[-1] * 1.001


def test_all_sizes_together_have_a_bar_for_each_side_and_question(tmp_path: Path) -> None:
    compared = compare_arms(write_arms(tmp_path), "t")
    figure = family_figure(compared.families, compared.arms, 3600.0)
    flops, seconds = ([bar.get_width() for bar in axes.patches] for axes in figure.axes)
    at_arm = compared.families[0].at_arm.chain.high
    assert flops == pytest.approx([1.2e6, 2e6, at_arm, 2e6])
    assert seconds == pytest.approx([value * 2e-5 for value in flops])
    shown = [text.get_text() for text in figure.axes[1].texts]
    assert shown[:2] == ["24 ($24.00)", "≥ 40 ($40.00)"]
    assert shown[2].startswith("≤ ")


def test_without_a_family_the_bars_say_so(tmp_path: Path) -> None:
    compared = compare_arms(write_arms(tmp_path)[:1], "t")
    figure = family_figure(compared.families, compared.arms, None)
    assert figure.get_suptitle() == "No arm has all sizes of the chain yet."


def test_the_caption_says_the_regime_and_what_is_not_shown(tmp_path: Path) -> None:
    arms = read_arms(write_arms(tmp_path))
    text = " ".join(caption(arms))
    assert "a chain that grows from S to L parameters, and from scratch and small model trained on." in text
    assert "Tokens per parameter: base 0.9 and, at equal compute and L, from scratch 1.3 (in the TokenFormer" in text
    assert "One seed, 64 validation tokens." in text
    assert "Not shown: the variation over seeds" in text
    assert "The regime is not that of the paper" in text
    drawn = " ".join(comparison_figure(arms, "title").get_supxlabel().split())
    assert " ".join(regime(arms)) in drawn
    assert "3 seeds" in " ".join(caption(read_arms(write_seeds(tmp_path / "seeds"))))


def test_the_regime_does_not_depend_on_models_of_another_size(tmp_path: Path) -> None:
    chain, scratch, _ = read_arms(write_arms(tmp_path))

    def seeing(arm: ArmCurve, last: float, base: float = 2430) -> ArmCurve:
        """Return the arm with models that have seen these numbers of tokens per parameter."""
        ratios = {"S": base, "L": last}
        ends = [(run, run.end.totals.tokens / ratios[run.size]) for run in arm.stages if run.end]
        return replace(arm, stages=tuple(replace(run, parameters=count) for run, count in ends))

    other = "The regime is not that of the paper"
    optimal = replace(seeing(scratch, 20), name="optimal", title="compute-optimal")
    assert other not in " ".join(caption([seeing(chain, 67), seeing(scratch, 67), optimal]))
    assert other in " ".join(caption([seeing(chain, 20), seeing(scratch, 20)]))
    assert other in " ".join(caption([seeing(chain, 67, base=20), seeing(scratch, 67)]))


def test_an_arm_from_scratch_at_another_compute_is_not_in_the_regime(tmp_path: Path) -> None:
    chain, *_ = write_arms(tmp_path)
    longer = Arm("x", "longer", "scratch", (write_stage(tmp_path, "x", "L", [16, 6], 2400),))
    assert "Tokens per parameter: base 0.9 (in the TokenFormer paper 2,430)." in caption(read_arms([chain, longer]))
