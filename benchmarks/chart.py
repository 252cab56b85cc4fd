"""Chart of the results of a benchmark."""

from collections.abc import Sequence
from typing import Any

from benchmarks.pattention import PRODUCTS
from benchmarks.targets import Verdict
from tfscale.analysis.style import (
    CHAIN,
    GREY,
    INK,
    OTHERS,
    SMALL,
    WIDTH,
    FigureKind,
    Style,
    blank,
    drawing,
    render,
    tidy,
)
from tfscale.bench.contest import MATRIX_PRODUCT
from tfscale.bench.rows import Row

BAR_HEIGHT, PANEL_HEIGHT = 0.16, 2.1
"""Heights in inches of the line that shows a verdict, and of a panel that shows measurements."""
FARTHEST = 10.0
"""Largest factor between a measured value and its target that is drawn."""
LABEL = 12
"""Number of characters of the name of a case that fit in one line below its bars."""
MARKS = (0.1, 0.2, 0.35, 0.5, 0.7, 1, 1.4, 2, 3, 5, 10)


def has_chart(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> bool:
    """Return True if there are verdicts or measurements to draw."""
    return bool(verdicts or _panels(rows))


def _panels(rows: Sequence[Row]) -> dict[str, list[Row]]:
    panels = {part: [row for row in rows if row.part == part] for part in ("pattention", "step")}
    return {part: rows for part, rows in panels.items() if rows}


def draw_chart(device: str, rows: Sequence[Row], verdicts: Sequence[Verdict], kind: FigureKind) -> bytes:
    """Draw times for every shape, speeds for every size, and the distance from each target, and return the content of
    the image file."""
    panels = _panels(rows)
    heights = [PANEL_HEIGHT] * len(panels) + [0.5 + BAR_HEIGHT * len(verdicts)] * bool(verdicts)
    with drawing():
        figure = blank(WIDTH, sum(heights) + 0.3)
        places = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for (part, its), place in zip(panels.items(), places, strict=False):
            _contestants(place.subplots(), its, PRODUCTS if part == "pattention" else None)
        if verdicts:
            _targets(places[-1].subplots(), verdicts)
        figure.suptitle(device, fontsize=SMALL, color=GREY, x=0.01, ha="left")
        return render(figure, kind)


def _contestants(axes: Any, rows: Sequence[Row], ceiling: str | None) -> None:
    """Draw the times relative to the contestant named `ceiling`, whose time is a lower bound. If `ceiling` is None,
    draw the speeds relative to the first contestant."""
    cases = list(dict.fromkeys(row.case for row in rows))
    names = [name for name in dict.fromkeys(row.name for row in rows) if name not in (MATRIX_PRODUCT, ceiling)]
    styles = dict(zip(names, (CHAIN, *OTHERS), strict=False))
    times = {(row.case, row.name): row for row in rows}
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        for place, case in enumerate(cases):
            row, base = times.get((case, name)), times.get((case, ceiling or names[0]))
            if row and base:
                ratio = row.median / base.median if ceiling else base.median / row.median
                at = place + (index - (len(names) - 1) / 2) * width
                axes.bar(at, ratio, width, **_fill(styles[name]), label=name if place == 0 else None)
    axes.set_xticks(
        range(len(cases)), [case.replace(" ", "\n") if len(case) > LABEL else case for case in cases], fontsize=SMALL
    )
    axes.set_ylabel("time / matrix products" if ceiling else "speed / ours", fontsize=SMALL)
    axes.axhline(1, color=INK, linewidth=0.8)
    axes.legend(fontsize=SMALL, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    tidy(axes)


def _fill(style: Style) -> dict[str, Any]:
    return {"color": style.colour, "edgecolor": "white", "hatch": style.hatch, "linewidth": 0.4}


def _targets(axes: Any, verdicts: Sequence[Verdict]) -> None:
    for place, verdict in enumerate(reversed(verdicts)):
        share = max(verdict.value / verdict.target, 1 / FARTHEST)
        margin = min(share if verdict.at_least else 1 / share, FARTHEST)
        colour = CHAIN.colour if verdict.reached else OTHERS[0].colour
        axes.plot([1, margin], [place, place], color=colour, linewidth=1)
        axes.plot(margin, place, color=colour, marker="o" if verdict.reached else "x", markersize=4)
    axes.set_yticks(range(len(verdicts)), [verdict.name for verdict in reversed(verdicts)], fontsize=SMALL)
    axes.set_xscale("log")
    axes.set_xlim(min(0.7, *axes.get_xlim()), max(1.4, *axes.get_xlim()))
    here = [mark for mark in MARKS if axes.get_xlim()[0] <= mark <= axes.get_xlim()[1]]
    axes.set_xticks(here, [f"{mark:g}" for mark in here])
    axes.set_xticks([], minor=True)
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_xlabel("factor by which the value is better than its target (reached at 1 or more)", fontsize=SMALL)
    tidy(axes)
