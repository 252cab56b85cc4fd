"""The result as a figure: times at every shape, tokens a second at every size, and how far each target is."""

from collections.abc import Sequence
from statistics import median
from typing import Any

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
from tfscale.bench.gemm import NAME as GEMM
from tfscale.bench.pattention import PART as PATTENTION
from tfscale.bench.pattention import PRODUCTS
from tfscale.bench.rows import Row, Rows, Verdict
from tfscale.bench.run import Result
from tfscale.bench.step import PART as STEP

BAR_HEIGHT, PANEL_HEIGHT = 0.16, 2.1
"""Inches, of a verdict's line and of a panel."""
FARTHEST = 10.0
"""How far from its target a verdict is drawn at most."""
LABEL = 12
"""Letters of a case's name that fit below its bars."""
MARKS = (0.1, 0.2, 0.35, 0.5, 0.7, 1, 1.4, 2, 3, 5, 10)


def has_chart(result: Result) -> bool:
    """Whether there is anything to draw."""
    return bool(result.verdicts or _panels(Rows(result.rows)))


def _panels(rows: Rows) -> list[str]:
    return [part for part in (PATTENTION, STEP) if rows.of(part)]


def chart(result: Result, kind: FigureKind) -> bytes:
    """The figure as a file's content."""
    rows = Rows(result.rows)
    panels = _panels(rows)
    heights = [PANEL_HEIGHT] * len(panels) + [0.5 + BAR_HEIGHT * len(result.verdicts)] * bool(result.verdicts)
    with drawing():
        figure = blank(WIDTH, sum(heights) + 0.3)
        places = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, place in zip(panels, places, strict=False):
            _contestants(place.subplots(), rows.of(part), PRODUCTS if part == PATTENTION else None)
        if result.verdicts:
            _targets(places[-1].subplots(), result.verdicts)
        figure.suptitle(result.machine["device"], fontsize=SMALL, color=GREY, x=0.01, ha="left")
        return render(figure, kind)


def _contestants(axes: Any, rows: Sequence[Row], ceiling: str | None) -> None:
    """Times over those of the bare matrix products; or speeds over those of ours."""
    cases = list(dict.fromkeys(row.case for row in rows))
    names = [name for name in dict.fromkeys(row.name for row in rows) if name not in (GEMM, ceiling)]
    styles = dict(zip(names, (CHAIN, *OTHERS), strict=False))
    times = {(row.case, row.name): row for row in rows}
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        for place, case in enumerate(cases):
            row, base = times.get((case, name)), times.get((case, ceiling or names[0]))
            if row and base:
                ratios = [_ratio(row.seconds, base.seconds, ceiling)]
                at = place + (index - (len(names) - 1) / 2) * width
                axes.bar(at, ratios, width, **_fill(styles[name]), label=name if place == 0 else None)
    axes.set_xticks(
        range(len(cases)), [case.replace(" ", "\n") if len(case) > LABEL else case for case in cases], fontsize=SMALL
    )
    axes.set_ylabel("time / its matrix products" if ceiling else "speed / ours", fontsize=SMALL)
    axes.axhline(1, color=INK, linewidth=0.8)
    axes.legend(fontsize=SMALL, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    tidy(axes)


def _ratio(seconds: Sequence[float], base: Sequence[float], ceiling: str | None) -> float:
    return median(seconds) / median(base) if ceiling else median(base) / median(seconds)


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
    axes.set_xlabel("times better than its target (right of 1: reached)", fontsize=SMALL)
    tidy(axes)
