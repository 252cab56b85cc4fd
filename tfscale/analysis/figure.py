"""The figure: held-out perplexity over cumulative compute, in the form of Figure 3 of arXiv 2410.23168.

The chain is one connected curve through its sizes; every other arm has an end point for each size. Thin lines are the
evaluations on the way, bands what other seeds or documents would leave open. Beside it, what each growth did to the
loss. What others published is drawn hollow; what was fitted and not measured is a shaded law.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfscale.analysis.bootstrap import Sample, draw_together, sample
from tfscale.analysis.curves import ArmCurve, Measure, curve
from tfscale.analysis.growths import GrowthEvent, growths
from tfscale.analysis.intervals import LEVEL
from tfscale.analysis.labels import Label, Placed, place
from tfscale.analysis.scaling_law import ScalingLaw
from tfscale.analysis.style import (
    CHAIN,
    GREY,
    INK,
    PALE,
    SMALL,
    WIDTH,
    Style,
    around,
    blank,
    drawing,
    power,
    round_values,
    styles,
    tidy,
)
from tfscale.analysis.table import the_chain
from tfscale.analysis.words import join, number

AXIS: dict[Measure, str] = {
    "flops": "cumulative compute, base included (model FLOPs)",
    "tokens": "cumulative training tokens, base included",
    "device_seconds": "cumulative device-seconds, base included",
}
HEIGHT, LEGEND_LINE = 3.7, 0.155  # inches
AXES_POINTS, LETTER = (240.0, 190.0), 7.4
"""About the size of the axes on paper, and of the letters in it, in points of type."""
TITLE_WIDTH, LEGEND_WIDTH, CAPTION_WIDTH = 74, 40, 105  # characters
PUBLISHED_LINES = {"chain": "-", "scratch": "--", "trained_on": ":", "one_jump": "-."}


@dataclass(frozen=True)
class Frame:
    """The part of the plane that is shown: room around the ends of the runs. Curves come in from outside."""

    x: tuple[float, float]
    y: tuple[float, float]


def comparison_figure(
    arms: Sequence[ArmCurve],
    title: str,
    measure: Measure = "flops",
    laws: Sequence[ScalingLaw] = (),
    published: Sequence[ArmCurve] = (),
    with_growths: bool = True,
) -> Any:
    """The figure, a `matplotlib.figure.Figure` apart from all global state.

    Args:
        laws: fits in the same measure, drawn in the colour of their arms.
        published: arms that others published; those without a cost in this measure are left out.
        with_growths: whether a second panel shows what each growth did to the loss.

    Raises:
        ValueError: no chain among the arms, or nothing measured yet.
    """
    chain, events = the_chain(arms), growths(the_chain(arms))
    looks = styles(arms, chain)
    samples = {(arm.name, size): sample(arm.replicates(size), measure) for arm in arms for size in arm.sizes}
    published = [arm for arm in published if curve(arm.stages, measure)]
    frame = _frame(samples, arms, published, measure)
    with drawing():
        figure = blank(WIDTH, HEIGHT)
        if events and with_growths:
            axes, beside = figure.subplots(1, 2, width_ratios=[4, 1])
            _draw_growths(beside, events)
        else:
            axes = figure.subplots()
        _prepare(axes, frame, measure)
        for arm in arms:
            _draw_arm(axes, arm, samples, looks[arm.name], bold=arm is chain)
        for law in laws:
            _draw_law(axes, law, arms, looks[law.arm], frame)
        for number_, arm in enumerate(published):
            _draw_published(axes, arm, measure, number_)
        _label_sizes(axes, arms, chain, samples, looks, frame)
        notes = [*_mark_growths(axes, events, frame, measure), *_notes(samples, laws, published), *_unfinished(arms)]
        _entitle(figure, axes, title)
        if events and with_growths:
            notes = ["Right: loss right after growth (triangle) and at the stage's end (dot).", *notes]
        caption = " ".join(["Thin lines: evaluations during training.", *notes])
        figure.supxlabel(textwrap.fill(caption, CAPTION_WIDTH), fontsize=SMALL, color=GREY, x=0.01, ha="left")
    return figure


Samples = dict[tuple[str, str], Sample | None]


def _frame(samples: Samples, arms: Sequence[ArmCurve], published: Sequence[ArmCurve], measure: Measure) -> Frame:
    points = [point for each in samples.values() if each for point in _points(each)]
    if not points:
        raise ValueError("there is nothing to draw yet: no stage of any arm has been evaluated")
    others = [point for arm in published for point in curve(arm.stages, measure)]
    shown = [end for arm in arms for size in arm.sizes if (end := _end(samples[arm.name, size]))] or points
    shown, points = [*shown, *others], [*points, *others]
    furthest, lowest = max(x for x, _ in points), min(y for _, y in points)
    return Frame(
        x=around([furthest, *(x for x, _ in shown)], before=0.25, after=0.1, least=1.0),
        y=around([lowest, *(y for _, y in shown)], before=0.14, after=0.35, least=0.02),
    )


def _points(run: Sample) -> list[tuple[float, float]]:
    mean = run.mean
    return list(zip(np.exp(mean.log_compute[0]).tolist(), np.exp(mean.losses[0]).tolist(), strict=True))


def _end(run: Sample | None) -> tuple[float, float] | None:
    return _points(run)[-1] if run and run.finished else None


def _prepare(axes: Any, frame: Frame, measure: Measure) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    axes.set(xscale="log", yscale="log", xlim=frame.x, ylim=frame.y, xlabel=AXIS[measure], ylabel="held-out perplexity")
    # A logarithmic locator finds no ticks between 5 and 9, and that is where small comparisons live.
    axes.yaxis.set_major_locator(FixedLocator(round_values(*frame.y, most=9)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(FixedLocator(round_values(*frame.x, most=6)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    tidy(axes)


def _draw_arm(axes: Any, arm: ArmCurve, samples: Samples, style: Style, bold: bool) -> None:
    runs = [run for size in arm.sizes if (run := samples[arm.name, size])]
    for run in runs:
        compute, perplexity = zip(*_points(run), strict=True)
        _draw_band(axes, run, compute, style)
        axes.plot(
            compute, perplexity, color=style.colour, linewidth=0.7, alpha=0.8 if bold else 0.45, zorder=2 if bold else 1
        )
    ends = [end for run in runs if (end := _end(run))]
    axes.plot(
        [x for x, _ in ends],
        [y for _, y in ends],
        color=style.colour,
        marker=style.marker,
        linestyle=style.line,
        linewidth=1.9 if bold else 1.0,
        markersize=6 if bold else 5,
        markeredgecolor="white",
        markeredgewidth=0.7,
        label=arm.title,
        zorder=4 if bold else 3,
    )


def _draw_band(axes: Any, run: Sample, compute: Sequence[float], style: Style) -> None:
    drawn = draw_together(run)
    if drawn.over:
        tail = (1 - LEVEL) / 2
        low, high = np.exp(np.quantile(drawn.curves[0].losses, [tail, 1 - tail], axis=0))
        if len(compute) == 1:
            axes.errorbar(compute, low, yerr=[[0], high - low], color=style.colour, fmt="none", capsize=2, zorder=2)
        else:
            axes.fill_between(compute, low, high, color=style.colour, alpha=0.22, linewidth=0, zorder=0.9)


def _draw_law(axes: Any, law: ScalingLaw, arms: Sequence[ArmCurve], style: Style, frame: Frame) -> None:
    """Over the compute that was fitted, and no further."""
    compute = np.geomspace(max(law.compute[0], frame.x[0]), min(law.compute[-1], frame.x[1]), 60)
    low, high = law.band(compute)
    title = next(arm.title for arm in arms if arm.name == law.arm)
    axes.fill_between(compute, np.exp(low), np.exp(high), color=style.colour, alpha=0.1, linewidth=0, zorder=0.6)
    for edge in (low, high):
        axes.plot(compute, np.exp(edge), color=style.colour, linestyle=(0, (1, 3)), linewidth=0.6, zorder=0.7)
    axes.plot(
        compute,
        np.exp(law.loss(compute)),
        color=style.colour,
        linestyle=(0, (1, 1)),
        linewidth=0.9,
        zorder=0.8,
        label=f"fit to {title}",
    )


def _draw_published(axes: Any, arm: ArmCurve, measure: Measure, index: int) -> None:
    """Hollow where the perplexity stands in a table or in the text, grey where it was read off a figure."""
    points = [
        (e.totals.of(measure), e.perplexity, (e.read_from or {}).get("perplexity"))
        for s in arm.stages
        for e in s.evaluations
    ]
    shade = ("#000000", "#555555", "#8A8A8A", "#333333", "#6E6E6E")[index % 5]
    marker = ("o", "s", "D", "v", "^")[index % 5]
    # The runs of a chain follow each other; two of one size from scratch do not, so only ends are joined.
    ends = [s.evaluations[-1] for s in arm.stages if s.evaluations]
    axes.plot([e.totals.of(measure) for e in ends], [e.perplexity for e in ends], color=shade, linewidth=0.8,
              linestyle=PUBLISHED_LINES[arm.kind], zorder=2.5)  # fmt: skip
    for source in ("hollow", "grey"):
        chosen = [(x, y) for x, y, read in points if (read == "figure") == (source == "grey")]
        axes.plot(
            [x for x, _ in chosen],
            [y for _, y in chosen],
            marker=marker,
            markersize=4.2,
            linestyle="none",
            markerfacecolor="white" if source == "hollow" else "#BBBBBB",
            markeredgecolor=shade,
            markeredgewidth=0.8,
            zorder=2.6,
            label=f"published: {arm.title}" if chosen and len(chosen) >= len(points) / 2 else "_nolegend_",
        )


def _label_sizes(
    axes: Any, arms: Sequence[ArmCurve], chain: ArmCurve, samples: Samples, looks: dict[str, Style], frame: Frame
) -> None:
    """Names the chain's ends, and those of runs that did not end at the chain's compute."""
    ends = {(arm.name, size): end for arm in arms for size in arm.sizes if (end := _end(samples[arm.name, size]))}
    named = [(chain.name, size) for size in chain.sizes if (chain.name, size) in ends]
    others = [(arm.name, size) for arm in arms if arm is not chain and arm.kind != "trained_on" for size in arm.sizes]
    for place_ in others:
        at_chain = ends.get((chain.name, place_[1]), (0.0, 0.0))[0]
        if place_ in ends and not math.isclose(ends[place_][0], at_chain, rel_tol=0.03):
            named.append(place_)
    labels = [Label(size, _in_points(ends[arm, size], frame)) for arm, size in named]
    places = place(labels, [_in_points(end, frame) for end in ends.values()], LETTER)
    for (arm, size), placed in zip(named, places, strict=True):
        weight = "bold" if arm == chain.name else "normal"
        _annotate(axes, size, ends[arm, size], placed, color=looks[arm].colour, fontweight=weight)


def _in_points(at: tuple[float, float], frame: Frame) -> tuple[float, float]:
    """About where a point of the data lies on paper: in points of type, from the corner of the axes."""
    (x0, x1), (y0, y1) = frame.x, frame.y
    return (
        AXES_POINTS[0] * math.log(at[0] / x0) / math.log(x1 / x0),
        AXES_POINTS[1] * math.log(at[1] / y0) / math.log(y1 / y0),
    )


def _annotate(axes: Any, text: str, at: tuple[float, float], placed: Placed, **style: Any) -> None:
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.2, foreground="white")]
    axes.annotate(
        text,
        at,
        placed.offset,
        textcoords="offset points",
        ha=placed.ha,
        va=placed.va,
        fontsize=LETTER,
        path_effects=halo,
        zorder=6,
        clip_on=False,
        **style,
    )


def _mark_growths(axes: Any, events: Sequence[GrowthEvent], frame: Frame, measure: Measure) -> list[str]:
    """Mark where the chain grew, and the perplexity right after: on the upper edge where that lies above the frame.
    A growth out of imported weights, whose cost in this measure is not known, has no place on the axis.

    Returns the sentence for the caption, if one is needed.
    """
    events = [event for event in events if event.after.totals.of(measure) > 0]
    above = False
    label = "right after growth, untrained"
    for size in dict.fromkeys(event.size for event in events):
        after = [event.after for event in events if event.size == size]
        x = math.exp(np.mean([math.log(e.totals.of(measure)) for e in after]))
        y = math.exp(np.mean([e.loss for e in after]))
        axes.axvline(x, color=PALE, linewidth=0.8, zorder=0.5)
        axes.plot(
            x,
            min(y, frame.y[1]),
            marker="^",
            markersize=5,
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
            _annotate(axes, number(y), (x, frame.y[1]), Placed((5, 0), "left", "center"), color=CHAIN.colour)
    return ["Numbers at the upper edge: perplexity right after growth, off the scale."] if above else []


def _draw_growths(axes: Any, events: Sequence[GrowthEvent]) -> None:
    """Loss right after each growth and at the end of its stage, against the loss just before it."""
    sizes = list(dict.fromkeys(event.size for event in events))
    axes.axhline(0, color=INK, linewidth=0.8, zorder=1)
    for event in events:
        x, jump = sizes.index(event.size), event.after.loss - event.before
        axes.plot([x, x], [0, jump], color=CHAIN.colour, linewidth=1.0, zorder=2)
        axes.plot(x, jump, marker="^", markersize=5, color=CHAIN.colour, markerfacecolor="white", zorder=3)
        if event.end is not None:
            axes.plot(x, event.end - event.before, marker="o", markersize=4.5, color=CHAIN.colour, zorder=3)
    axes.set_xticks(range(len(sizes)), sizes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(sizes) - 0.5)
    axes.margins(y=0.12)
    tidy(axes)
    axes.set_ylabel("loss against that just before growth (nats)", labelpad=1)
    axes.set_xlabel("grown to")


def _notes(samples: Samples, laws: Sequence[ScalingLaw], published: Sequence[ArmCurve]) -> list[str]:
    over = {source for run in samples.values() if run for source in draw_together(run).over}
    notes = [f"Bands: {LEVEL:.0%} over {join(sorted(over))}."] if over else []
    if laws:
        notes.append(
            "Dotted: fitted and not measured, E + A/C^α to the arm's lowest evaluations, and where "
            f"{LEVEL:.0%} would lie were that the law."
        )
    if published:
        notes.append(
            "Hollow: published, perplexity read from a table; grey: off a figure; compute derived from tokens."
        )
    return notes


def _unfinished(arms: Sequence[ArmCurve]) -> list[str]:
    sizes = {
        arm.title: ", ".join(dict.fromkeys(stage.size for stage in arm.stages if not stage.finished)) for arm in arms
    }
    missing = [f"{title} ({names})" for title, names in sizes.items() if names]
    return [f"Not finished: {join(missing)}."] if missing else []


def _entitle(figure: Any, axes: Any, title: str) -> None:
    """Title, and under it the legend: above the axes, where no curve can run into it."""
    columns = 2
    handles, texts = axes.get_legend_handles_labels()
    labels, lines = [textwrap.fill(text, LEGEND_WIDTH) for text in texts], textwrap.wrap(title, TITLE_WIDTH) or [""]
    rows = math.ceil(sum(label.count("\n") + 1 for label in labels) / columns)
    figure.set_figheight(HEIGHT + LEGEND_LINE * (rows + len(lines)))
    figure.legend(
        handles,
        labels,
        title="\n".join(lines),
        title_fontproperties={"size": 9, "weight": "bold"},
        alignment="left",
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        handlelength=3.2,
        columnspacing=1.5,
        fontsize=SMALL + 0.4,
        borderaxespad=0.2,
    )
