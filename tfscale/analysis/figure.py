"""The figure: held-out perplexity over cumulative compute, in the form of Figure 3 of arXiv 2410.23168.

The chain is one connected curve through its sizes; every other arm has an end point for each size. Thin lines are the
evaluations on the way. Colours are those of Okabe and Ito; markers and line styles tell the arms apart without them.
"""

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from tfscale.analysis.curves import ArmCurve, Measure, StageCurve, curve
from tfscale.analysis.table import the_chain
from tfscale.analysis.words import join, number

AXIS: dict[Measure, str] = {
    "flops": "cumulative compute, base included (model FLOPs)",
    "tokens": "cumulative training tokens, base included",
    "device_seconds": "cumulative device-seconds, base included",
}
INCHES = (7.2, 5.0)
PNG_DPI = 200
TITLE_WIDTH, CAPTION_WIDTH = 80, 120  # characters
INK, GREY, PALE = "#222222", "#666666", "#DDDDDD"


TICK_STEPS = (
    (1,),
    (1, 3),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
    *(tuple(step * width for step in range(round(1 / width), round(10 / width))) for width in (1, 0.5, 0.2, 0.1, 0.05)),
)
"""Round numbers of a decade, from few to many."""


@dataclass(frozen=True)
class Style:
    """How an arm is drawn."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]


CHAIN = Style("#0072B2", "o", "-")
OTHERS = (
    Style("#D55E00", "s", "--"),
    Style("#009E73", "D", "-."),
    Style("#CC79A7", "v", ":"),
    Style("#E69F00", "P", (0, (5, 1, 1, 1, 1, 1))),
    Style("#56B4E9", "X", (0, (1, 2))),
    Style("#000000", "*", (0, (8, 3))),
)


@dataclass(frozen=True)
class Frame:
    """The part of the plane that is shown: room around the ends of the runs. Curves come in from outside."""

    x: tuple[float, float]
    y: tuple[float, float]


def comparison_figure(arms: Sequence[ArmCurve], title: str, measure: Measure = "flops") -> Any:
    """The figure, a `matplotlib.figure.Figure` apart from all global state.

    Raises:
        ValueError: no chain among the arms, or nothing measured yet.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    chain = the_chain(arms)
    others = [arm for arm in arms if arm is not chain]
    frame = _frame(arms, measure)
    with rc_context({"font.size": 9, "font.family": "DejaVu Sans", "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=INCHES, layout="constrained")
        axes = figure.add_subplot()
        _prepare(axes, frame, measure)
        _draw_arm(axes, chain, CHAIN, measure, bold=True)
        for index, arm in enumerate(others):
            _draw_arm(axes, arm, OTHERS[index % len(OTHERS)], measure, bold=False)
        _label_sizes(axes, chain, others, measure)
        notes = [*_draw_growth(axes, chain, frame, measure), *_unfinished(arms)]
        _entitle(axes, title)
        caption = " ".join(["Thin lines: evaluations during training.", *notes])
        figure.supxlabel(textwrap.fill(caption, CAPTION_WIDTH), fontsize=7.5, color=GREY)
    return figure


def render(figure: Any, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file's content; the same figure gives the same bytes."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "tfscale"}):
        figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def _frame(arms: Sequence[ArmCurve], measure: Measure) -> Frame:
    stages = [stage for arm in arms for stage in arm.stages]
    points = [point for stage in stages for point in curve([stage], measure)]
    if not points:
        raise ValueError("there is nothing to draw yet: no stage of any arm has been evaluated")
    shown = [end for stage in stages if (end := _end(stage, measure))] or points
    furthest, lowest = max(x for x, _ in points), min(y for _, y in points)
    return Frame(
        x=_around([furthest, *(x for x, _ in shown)], before=0.25, after=0.08, least=1.0),
        y=_around([lowest, *(y for _, y in shown)], before=0.12, after=0.35, least=0.02),
    )


def _around(values: Sequence[float], before: float, after: float, least: float) -> tuple[float, float]:
    """The range of the values, with margins that are fractions of its logarithmic width."""
    low, high = math.log(min(values)), math.log(max(values))
    width = max(high - low, least)
    return math.exp(low - before * width), math.exp(high + after * width)


def _end(stage: StageCurve, measure: Measure) -> tuple[float, float] | None:
    points = curve([stage], measure) if stage.finished else []
    return points[-1] if points else None


def _prepare(axes: Any, frame: Frame, measure: Measure) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    axes.set(xscale="log", yscale="log", xlim=frame.x, ylim=frame.y, xlabel=AXIS[measure], ylabel="held-out perplexity")
    # A logarithmic locator finds no ticks between 5 and 9, and that is where small comparisons live.
    axes.yaxis.set_major_locator(FixedLocator(_round_values(*frame.y, most=9)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(FixedLocator(_round_values(*frame.x, most=8)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    axes.tick_params(colors=INK, labelsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis="y", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)


def _round_values(low: float, high: float, most: int) -> list[float]:
    """As many round numbers as there are room for, `most` of them if evenly spread, on a logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    best: list[float] = []
    for steps in TICK_STEPS:
        ticks = sorted({float(f"{step * 10.0**decade:.6g}") for decade in decades for step in steps})
        ticks = [tick for tick in ticks if low <= tick <= high]
        room = math.log(high / low) / most
        if all(math.log(after / before) >= room for before, after in pairwise(ticks)) and len(ticks) > len(best):
            best = ticks
    return best


def _power(value: float) -> str:
    if value < 1e5:
        return f"{value:,g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    mantissa = mantissa.removesuffix(".0")
    return f"$10^{{{int(exponent)}}}$" if mantissa == "1" else f"${mantissa}\\times10^{{{int(exponent)}}}$"


def _draw_arm(axes: Any, arm: ArmCurve, style: Style, measure: Measure, bold: bool) -> None:
    for stage in arm.stages:
        axes.plot(
            *_columns(curve([stage], measure)),
            color=style.colour,
            linewidth=0.8 if bold else 0.7,
            alpha=0.8 if bold else 0.4,
            zorder=2 if bold else 1,
        )
    axes.plot(
        *_columns([end for stage in arm.stages if (end := _end(stage, measure))]),
        color=style.colour,
        marker=style.marker,
        linestyle=style.line,
        linewidth=2.2 if bold else 1.1,
        markersize=7.5 if bold else 6.5,
        markeredgecolor="white",
        markeredgewidth=0.8,
        label=arm.title,
        zorder=4 if bold else 3,
    )


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _label_sizes(axes: Any, chain: ArmCurve, others: Sequence[ArmCurve], measure: Measure) -> None:
    """Names the chain's ends, and those of runs that did not end at the chain's compute."""
    labelled: dict[str, float] = {}
    for stage in chain.stages:
        if end := _end(stage, measure):
            labelled[stage.size] = end[0]
            _annotate(axes, stage.size, end, (-6, -7), ha="right", va="top", fontweight="bold", color=CHAIN.colour)
    for index, arm in enumerate(others):
        colour = OTHERS[index % len(OTHERS)].colour
        for stage in arm.stages if arm.kind != "trained_on" else ():
            end = _end(stage, measure)
            if end and not math.isclose(end[0], labelled.get(stage.size, 0), rel_tol=0.03):
                _annotate(axes, stage.size, end, (5, 4), ha="left", va="bottom", color=colour)


def _annotate(axes: Any, text: str, at: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground="white")]
    axes.annotate(
        text, at, offset, textcoords="offset points", fontsize=8.5, path_effects=halo, zorder=6, clip_on=False, **style
    )


def _draw_growth(axes: Any, chain: ArmCurve, frame: Frame, measure: Measure) -> list[str]:
    """Marks where the chain grew, and the perplexity right after: on the upper edge where that lies above the frame.

    Returns the sentence for the caption, if one is needed.
    """
    above = False
    label = "right after growth, untrained"
    for stage in chain.stages:
        points = curve([stage], measure) if stage.grown else []
        if not points:
            continue
        x, y = points[0]
        axes.axvline(x, color=PALE, linewidth=0.8, zorder=0.5)
        axes.plot(
            x,
            min(y, frame.y[1]),
            marker="^",
            markersize=6,
            linestyle="none",
            markerfacecolor="white",
            markeredgecolor=CHAIN.colour,
            clip_on=False,
            label=label,
            zorder=5,
        )
        label = "_nolegend_"
        if y > frame.y[1]:
            above = True
            _annotate(axes, number(y), (x, frame.y[1]), (6, 0), ha="left", va="center", color=CHAIN.colour)
    return ["Numbers at the upper edge: perplexity right after growth, off the scale."] if above else []


def _unfinished(arms: Sequence[ArmCurve]) -> list[str]:
    sizes = {arm.title: ", ".join(stage.size for stage in arm.stages if not stage.finished) for arm in arms}
    missing = [f"{title} ({names})" for title, names in sizes.items() if names]
    return [f"Not finished: {join(missing)}."] if missing else []


def _entitle(axes: Any, title: str) -> None:
    """Title, and under it the legend: above the axes, where no curve can run into it."""
    columns, line = 2, 14
    labels = axes.get_legend_handles_labels()[1]
    rows = math.ceil(len(labels) / columns)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.05),
        ncols=columns,
        frameon=False,
        handlelength=3.6,
        fontsize=8.5,
        borderaxespad=0,
        borderpad=0,
    )
    axes.set_title(textwrap.fill(title, TITLE_WIDTH), loc="left", fontsize=10, fontweight="bold", pad=17 + line * rows)
