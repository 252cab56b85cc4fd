"""Main figure, which shows validation perplexity over cumulative compute like Figure 3 of arXiv 2410.23168.

Each arm has one marker per size, at the end of the run, and a line that connects the markers. The line of the chain is
bold. Thin lines are evaluations during training, and bands show the variation over seeds or documents. A second panel
shows the change in loss at each growth. Published points are hollow or grey, and fitted scaling laws are dotted.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfscale.analysis.bootstrap import CurvesBySize, ReplicateCurves, curves_by_size, draw_together, sources
from tfscale.analysis.caption import regime
from tfscale.analysis.curves import ArmCurve, Measure, curve, the_chain
from tfscale.analysis.figure_marks import annotate, draw_growths, mark_best_of_any_size, mark_growths
from tfscale.analysis.growths import growths
from tfscale.analysis.intervals import LEVEL
from tfscale.analysis.scaling_law import ScalingLaw
from tfscale.analysis.style import GREY, SMALL, WIDTH, Style, around, blank, drawing, power, round_ticks, styles, tidy
from tfscale.plan.arm_kind import arm_kind
from tfscale.text import join

AXIS: dict[Measure, str] = {
    "flops": "cumulative compute including the base (model FLOPs)",
    "flops_with_optimizer": "cumulative compute including the base (FLOPs of model and optimizer)",
    "tokens": "cumulative training tokens including the base",
    "device_seconds": "cumulative device-seconds including the base",
}
HEIGHT, LEGEND_LINE, CAPTION_LINE = 3.3, 0.155, 0.13  # inches
OFFSET = 4
"""Horizontal and vertical distance from the end of a curve to its label, in points (1/72 inch)."""
TITLE_WIDTH, LEGEND_WIDTH, CAPTION_WIDTH = 74, 40, 105  # characters
PUBLISHED_LINES = {"chain": "-", "scratch": "--", "trained_on": ":", "one_jump": "-."}


def comparison_figure(
    arms: Sequence[ArmCurve],
    title: str,
    measure: Measure = "flops",
    laws: Sequence[ScalingLaw] = (),
    published: Sequence[ArmCurve] = (),
    with_growths: bool = True,
) -> Any:
    """Draw the main figure and return it as a `matplotlib.figure.Figure`, without use of `matplotlib.pyplot`.

    Args:
        laws: scaling laws in the same measure, drawn in the colours of their arms.
        published: arms with published points. Arms without a cost in this measure are omitted.
        with_growths: True to add a second panel with the change in loss at each growth.

    Raises:
        ValueError: there is no chain among the arms, or nothing has been measured yet.
    """
    chain, looks, curves = the_chain(arms), styles(arms), curves_by_size(arms, measure)
    events = growths(chain)
    from_scratch = {arm.name for arm in arms if arm_kind(arm.kind).from_scratch}
    published = [arm for arm in published if curve(arm.stages, measure)]
    with drawing():
        figure = blank(WIDTH, HEIGHT)
        if events and with_growths:
            axes, beside = figure.subplots(1, 2, width_ratios=[4, 1])
            draw_growths(beside, events)
        else:
            axes = figure.subplots()
        _prepare(axes, curves, published, measure)
        for arm in arms:
            _draw_arm(axes, arm, curves, looks[arm.name], bold=arm is chain)
        for detour in chain.detours:
            if points := curve([detour], measure):
                axes.plot(*zip(*points, strict=True), color=looks[chain.name].colour, linewidth=0.9, linestyle=":")
        for law in laws:
            _draw_law(axes, law, arms, looks[law.arm])
        for index, arm in enumerate(published):
            _draw_published(axes, arm, measure, index)
        scratch = {place: run for place, run in curves.items() if place[0] in from_scratch}
        mark_best_of_any_size(axes, [curves[chain.name, size] for size in chain.sizes], scratch)
        _label_sizes(axes, arms, chain, curves, looks)
        notes = [*mark_growths(axes, events, measure), *_notes(arms, curves, laws, published)]
        _entitle(figure, axes, title)
        if events and with_growths:
            stage = "trunk's stage" if chain.trunk else "stage"
            notes = [f"Right panel: loss right after growth (triangle) and at the end of the {stage} (dot).", *notes]
        text = " ".join([*regime(arms), "Thin lines: evaluations during training.", *notes])
        lines = textwrap.wrap(text, CAPTION_WIDTH)
        figure.set_figheight(figure.get_figheight() + CAPTION_LINE * len(lines))
        figure.supxlabel("\n".join(lines), fontsize=SMALL, color=GREY, x=0.01, ha="left")
    return figure


def _prepare(axes: Any, curves: CurvesBySize, published: Sequence[ArmCurve], measure: Measure) -> None:
    """Set the scales and limits of the axes so that the ends of all runs are visible. The beginnings of curves may be
    outside the axes."""
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    points = [point for each in curves.values() if each for point in _points(each)]
    if not points:
        raise ValueError("there is nothing to draw yet: no stage of any arm has been evaluated")
    others = [point for arm in published for point in curve(arm.stages, measure)]
    shown = [end for each in curves.values() if (end := _end(each))] or points
    xs, ys = zip(*shown, *others, strict=True)
    furthest, lowest = max(x for x, _ in [*points, *others]), min(y for _, y in [*points, *others])
    x_limits = around([furthest, *xs], before=0.25, after=0.1, least=1.0)
    y_limits = around([lowest, *ys], before=0.14, after=0.35, least=0.02)
    axes.set(xscale="log", yscale="log", xlim=x_limits, ylim=y_limits)
    axes.set(xlabel=AXIS[measure], ylabel="validation perplexity")
    axes.yaxis.set_major_locator(round_ticks(*y_limits))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(round_ticks(*x_limits))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    tidy(axes)


def _points(run: ReplicateCurves) -> list[tuple[float, float]]:
    mean = run.mean
    return list(zip(np.exp(mean.log_compute[0]).tolist(), np.exp(mean.losses[0]).tolist(), strict=True))


def _end(run: ReplicateCurves | None) -> tuple[float, float] | None:
    return _points(run)[-1] if run and run.finished else None


def _draw_arm(axes: Any, arm: ArmCurve, curves: CurvesBySize, style: Style, bold: bool) -> None:
    runs = [run for size in arm.sizes if (run := curves[arm.name, size])]
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


def _draw_band(axes: Any, run: ReplicateCurves, compute: Sequence[float], style: Style) -> None:
    drawn = draw_together(run)
    if drawn.over:
        tail = (1 - LEVEL) / 2
        low, high = np.exp(np.quantile(drawn.curves[0].losses, [tail, 1 - tail], axis=0))
        if len(compute) == 1:
            axes.errorbar(compute, low, yerr=[[0], high - low], color=style.colour, fmt="none", capsize=2, zorder=2)
        else:
            axes.fill_between(compute, low, high, color=style.colour, alpha=0.22, linewidth=0, zorder=0.9)


def _draw_law(axes: Any, law: ScalingLaw, arms: Sequence[ArmCurve], style: Style) -> None:
    fitted, (left, right) = law.frontier.compute, axes.get_xlim()
    compute = np.geomspace(max(fitted[0], left), min(fitted[-1], right), 60)
    for edge in law.band(compute):
        axes.plot(compute, np.exp(edge), color=style.colour, linestyle=(0, (1, 3)), linewidth=0.6, zorder=0.7)
    axes.plot(
        compute,
        np.exp(law.loss(compute)),
        color=style.colour,
        linestyle=(0, (1, 1)),
        linewidth=0.9,
        zorder=0.8,
        label=f"fit to {next(arm.title for arm in arms if arm.name == law.arm)}",
    )


def _draw_published(axes: Any, arm: ArmCurve, measure: Measure, index: int) -> None:
    """Draw the published points of an arm. Markers are grey if the perplexity was read from a figure, and hollow
    otherwise."""
    points = [
        (e.totals.of(measure), e.perplexity, (e.read_from or {}).get("perplexity"))
        for s in arm.stages
        for e in s.evaluations
    ]
    shade = ("#000000", "#555555", "#8A8A8A", "#333333", "#6E6E6E")[index % 5]
    marker = ("o", "s", "D", "v", "^")[index % 5]
    # The line connects only the ends of runs, because runs from scratch do not continue each other.
    ends = [s.evaluations[-1] for s in arm.stages if s.evaluations]
    axes.plot([e.totals.of(measure) for e in ends], [e.perplexity for e in ends], color=shade, linewidth=0.8,
              linestyle=PUBLISHED_LINES.get(arm.kind, "-."), zorder=2.5)  # fmt: skip
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
    axes: Any, arms: Sequence[ArmCurve], chain: ArmCurve, curves: CurvesBySize, looks: dict[str, Style]
) -> None:
    """Label the end of each run with its size. Labels of the chain are on the lower left. Labels of other arms are on
    the right, alternately above and below, and are omitted if the run ends at the chain's compute or if all runs of the
    arm train one model (`ArmKind.one_model`)."""
    chain_ends = {size: end for size in chain.sizes if (end := _end(curves[chain.name, size]))}
    for size, end in chain_ends.items():
        annotate(axes, size, end, (-OFFSET, -OFFSET), color=looks[chain.name].colour, fontweight="bold")
    others = [arm for arm in arms if arm is not chain and not arm_kind(arm.kind).one_model]
    for row, arm in enumerate(others):
        for column, size in enumerate(arm.sizes):
            end, at_chain = _end(curves[arm.name, size]), chain_ends.get(size, (0.0, 0.0))[0]
            if end and not math.isclose(end[0], at_chain, rel_tol=0.03):
                up = OFFSET if (row + column) % 2 else -OFFSET
                annotate(axes, size, end, (OFFSET, up), color=looks[arm.name].colour)


def _notes(
    arms: Sequence[ArmCurve], curves: CurvesBySize, laws: Sequence[ScalingLaw], published: Sequence[ArmCurve]
) -> list[str]:
    over = {source for run in curves.values() if run for source in sources(run)}
    seeds = sorted({seed for run in curves.values() if run and run.size > 1 for seed in run.seeds})
    named = {
        "seeds": f"seeds ({', '.join(map(str, seeds))})" if seeds else "seeds",
        "documents": "validation documents" if "seeds" in over else "validation documents only (one seed)",
    }
    notes = [f"Bands: {LEVEL:.0%} intervals over {join([named[each] for each in sorted(over)])}."] if over else []
    single, missing = [], []
    for arm in arms:
        sizes = [size for size in arm.sizes if (run := curves[arm.name, size]) and run.size == 1]
        if sizes:
            single.append(arm.title if len(sizes) == len(arm.sizes) else f"{arm.title} ({', '.join(sizes)})")
        left = [size for size in arm.sizes if not any(run.finished for run in arm.replicates(size))]
        if left:
            missing.append(f"{arm.title} ({', '.join(left)})")
    if "seeds" in over and single:
        notes.append(f"One seed, so no interval over seeds: {join(single)}.")
    if laws:
        notes.append(
            "Dotted: law E + A/C^α fitted to the ends of the arm's runs (not measured), with the range of "
            f"{LEVEL:.0%} of points under this law."
        )
    if published:
        notes.append("Hollow: published perplexity from a table; grey: from a figure; compute derived from tokens.")
    if missing:
        notes.append(f"Not finished: {join(missing)}.")
    return notes


def _entitle(figure: Any, axes: Any, title: str) -> None:
    """Add the title and the legend above the axes, where the legend cannot overlap a curve."""
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
