"""Where each model came from: a box a run, an arrow from a parent to what started from it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfscale.analysis.costs import marginal, mean
from tfscale.analysis.curves import ArmCurve, StageCurve
from tfscale.analysis.style import GREY, INK, SMALL, WIDTH, Style, blank, drawing
from tfscale.text import count

GAP = (1.28, 0.95)
"""Width and height of the cell that a box stands in: inches at four sizes."""
HALF_BOX = 0.545


def lineage_figure(arms: Sequence[ArmCurve], looks: dict[str, Style]) -> Any:
    """A row an arm, a column a size. A run that stands in an earlier row already has a dashed box."""
    sizes = list(dict.fromkeys(size for arm in arms for size in arm.sizes))
    drawn: set[str] = set()
    with drawing():
        figure = blank(WIDTH, 0.3 + 0.9 * len(arms))
        axes = figure.subplots()
        for row, arm in enumerate(arms):
            y = -row * GAP[1]
            axes.text(-0.5 * GAP[0], y + 0.37, arm.title, fontsize=SMALL + 0.4, fontweight="bold",
                      color=looks[arm.name].colour, va="bottom")  # fmt: skip
            columns = {size: sizes.index(size) * GAP[0] for size in arm.sizes}
            for size, x in columns.items():
                runs = arm.replicates(size)
                _draw_box(axes, runs, (x, y), looks[arm.name], again=runs[0].key in drawn)
                parents = [columns[each.size] for each in arm.stages if each.key == runs[0].parent]
                if parents:
                    _draw_arrow(axes, parents[0] + HALF_BOX, x - HALF_BOX, y, looks[arm.name])
            drawn |= {stage.key for stage in arm.stages}
        axes.set_xlim(-0.52 * GAP[0], (len(sizes) - 0.48) * GAP[0])
        axes.set_ylim(-(len(arms) - 0.6) * GAP[1], 0.58 * GAP[1])
        axes.set_axis_off()
    return figure


def _draw_box(axes: Any, runs: Sequence[StageCurve], at: tuple[float, float], look: Style, again: bool) -> None:
    lines = [runs[0].size, "the same run as above", *_keys(runs)] if again else _lines(runs)
    axes.text(
        *at,
        "\n".join(lines),
        fontsize=SMALL - 0.3,
        color=GREY if again else INK,
        ha="center",
        va="center",
        linespacing=1.25,
        bbox={
            "boxstyle": "round,pad=0.35",
            "facecolor": "white",
            "edgecolor": look.colour,
            "linewidth": 1.0,
            "linestyle": "--" if again else "-",
        },
        zorder=3,
    )


def _draw_arrow(axes: Any, start: float, end: float, y: float, look: Style) -> None:
    arrow = {"arrowstyle": "-|>", "color": look.colour, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (end, y), (start, y), arrowprops=arrow, zorder=2)


def _lines(runs: Sequence[StageCurve]) -> list[str]:
    """What a box says of a run."""
    first = runs[0]
    alone = mean([marginal(run) for run in runs])
    losses = [run.end.loss for run in runs if run.end]
    grown = f"{first.recipe}, " if first.grown and first.recipe != "none" else ""
    return [
        f"{first.size}: {count(first.parameters)} parameters" if first.parameters else first.size,
        f"{grown}{count(alone.tokens)} tokens" if alone else "not finished",
        f"perplexity {np.exp(np.mean(losses)):.3f}" if losses else "",
        *_keys(runs),
    ]


def _keys(runs: Sequence[StageCurve]) -> list[str]:
    return [runs[0].key] if len(runs) == 1 else [f"{len(runs)} seeds"]
