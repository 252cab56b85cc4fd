"""Figures of a comparison, which show perplexity over each measure of cost and the three costs as bars."""

from collections.abc import Iterator
from typing import Any

from tfscale.analysis.comparison import Comparison
from tfscale.analysis.costs import COSTS
from tfscale.analysis.curves import Measure
from tfscale.analysis.figure import comparison_figure
from tfscale.analysis.style import GREY, SMALL, WIDTH, Style, blank, drawing, power, styles, tidy
from tfscale.analysis.table import Row, Table, the_chain
from tfscale.analysis.words import UNITS

CAPTIONS = {
    "figure": "Validation perplexity over cumulative compute, and the change in loss at each growth",
    "figure_time": "Validation perplexity over cumulative device-seconds",
    "figure_tokens": "Validation perplexity over cumulative training tokens",
    "costs": "Cumulative, marginal and family cost of each arm",
}
MEANING = {
    "cumulative": "including the base",
    "marginal": "this stage only,\nwithout its parent",
    "family": "all sizes up to\nthis size",
}


def figures(comparison: Comparison) -> Iterator[tuple[str, Any]]:
    """Yield the name of each figure and the `matplotlib.figure.Figure`.

    Raises:
        ValueError: nothing has been measured yet.
    """
    arms, published, heading = comparison.arms, comparison.published, comparison.heading
    yield "figure", comparison_figure(arms, heading, comparison.measure, comparison.laws, published)
    # Time on other machines is not comparable, so published points are omitted.
    yield "figure_time", comparison_figure(arms, heading, "device_seconds", with_growths=False)
    yield "figure_tokens", comparison_figure(arms, heading, "tokens", published=published, with_growths=False)
    yield "costs", costs_figure(comparison.table, styles(arms, the_chain(arms)), comparison.measure)


def costs_figure(table: Table, looks: dict[str, Style], measure: Measure) -> Any:
    """Draw one panel per cost. Each panel has a group of bars per size, with one bar per arm, or a gap if the arm has
    not finished this size."""
    arms = {row.arm: row.title for row in table.rows}
    with drawing():
        from matplotlib.ticker import FuncFormatter

        figure = blank(WIDTH, 2.6)
        panels = figure.subplots(1, len(COSTS), sharey=True)
        for axes, cost in zip(panels, COSTS, strict=True):
            for index, arm in enumerate(arms):
                _draw_bars(axes, [row for row in table.rows if row.arm == arm], table.sizes, cost, measure,
                           looks[arm], index, len(arms))  # fmt: skip
            axes.set_xticks(range(len(table.sizes)), table.sizes)
            axes.set_xlim(-0.55, len(table.sizes) - 0.45)
            axes.set_title(cost, fontsize=8.4, fontweight="bold", loc="left")
            axes.set_xlabel(MEANING[cost], fontsize=SMALL, color=GREY)
            tidy(axes)
        panels[0].set_ylabel(UNITS[measure])
        panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: power(value) if value else "0"))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False, fontsize=SMALL + 0.4)
    return figure


def _draw_bars(
    axes: Any, rows: list[Row], sizes: tuple[str, ...], cost: str, measure: Measure, look: Style, index: int, arms: int
) -> None:
    width = 0.8 / arms
    costs = [(sizes.index(row.size), getattr(row, cost)) for row in rows]
    known = [(place, totals.of(measure)) for place, totals in costs if totals is not None]
    axes.bar(
        [place + (index - (arms - 1) / 2) * width for place, _ in known],
        [value for _, value in known],
        width=width * 0.92,
        facecolor=look.colour,
        edgecolor="white",
        hatch=look.hatch,
        linewidth=0.3,
        label=rows[0].title,
    )
