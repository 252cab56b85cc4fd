"""Annotations of the main figure: labels, growths, and the best model from scratch of any size. The second panel of
this figure, which shows the change in loss at each growth, is also drawn here."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfscale.analysis.bootstrap import CurvesBySize, ReplicateCurves
from tfscale.analysis.curves import Measure
from tfscale.analysis.equal_cost import best_end
from tfscale.analysis.growths import GrowthEvent
from tfscale.analysis.style import CHAIN, GREY, INK, PALE, tidy
from tfscale.text import count

LETTER = 7.4
"""Font size of labels inside the axes, in points."""


def annotate(axes: Any, text: str, at: tuple[float, float], offset: tuple[int, int], **style: Any) -> None:
    """Write text next to a data point, at an offset (right, up) in points (1/72 inch)."""
    from matplotlib.patheffects import withStroke

    right, up = offset
    axes.annotate(
        text,
        at,
        offset,
        textcoords="offset points",
        ha="left" if right > 0 else "right",
        va="center" if up == 0 else "bottom" if up > 0 else "top",
        fontsize=LETTER,
        path_effects=[withStroke(linewidth=2.2, foreground="white")],
        zorder=6,
        clip_on=False,
        **style,
    )


def mark_growths(axes: Any, events: Sequence[GrowthEvent], measure: Measure) -> list[str]:
    """Draw a marker for the growth to each size of the chain, at the perplexity right after the growth, averaged over
    seeds. If this perplexity is above the axes, the marker is at the upper edge of the axes. Growths whose cost is zero
    or unknown, such as growths from imported weights, are omitted. Return sentences for the caption."""
    events = [event for event in events if event.cost.of(measure) > 0]
    above, label, top = False, "right after growth, untrained", axes.get_ylim()[1]
    for size in dict.fromkeys(event.size for event in events):
        of_size = [event for event in events if event.size == size]
        x = math.exp(np.mean([math.log(event.cost.of(measure)) for event in of_size]))
        y = math.exp(np.mean([event.loss_after for event in of_size]))
        axes.axvline(x, color=PALE, linewidth=0.8, zorder=0.5)
        axes.plot(
            x,
            min(y, top),
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
        if y > top:
            above = True
            annotate(axes, count(y), (x, top), (5, 0), color=CHAIN.colour)
    return ["Numbers at the upper edge: perplexity right after growth, beyond the axis."] if above else []


def mark_best_of_any_size(axes: Any, runs: Sequence[ReplicateCurves | None], scratch: CurvesBySize) -> None:
    """Draw a marker for each of the chain's models. The marker is at the compute of this model, and at the perplexity
    of the best model from scratch, of any size, that cost no more."""
    found = [(run, best) for run in runs if run and (best := best_end(run, scratch))]
    if found:
        axes.plot(
            [math.exp(run.mean.log_compute[0, -1]) for run, _ in found],
            [math.exp(best.loss) for _, best in found],
            color=GREY,
            marker="_",
            markersize=13,
            markeredgewidth=1.6,
            linestyle="none",
            label="best from scratch of any size",
            zorder=2.8,
        )


def draw_growths(axes: Any, events: Sequence[GrowthEvent]) -> None:
    """Draw the losses right after each growth and at the end of the stage, as differences in nats from the loss before
    the growth."""
    sizes = list(dict.fromkeys(event.size for event in events))
    axes.axhline(0, color=INK, linewidth=0.8, zorder=1)
    for event in events:
        x, jump = sizes.index(event.size), event.loss_after - event.loss_before
        axes.plot([x, x], [0, jump], color=CHAIN.colour, linewidth=1.0, zorder=2)
        axes.plot(x, jump, marker="^", markersize=5, color=CHAIN.colour, markerfacecolor="white", zorder=3)
        if event.loss_end is not None:
            end = event.loss_end - event.loss_before
            axes.plot(x, end, marker="o", markersize=4.5, color=CHAIN.colour, zorder=3)
    axes.set_xticks(range(len(sizes)), sizes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(sizes) - 0.5)
    axes.margins(y=0.12)
    tidy(axes)
    axes.set_ylabel("loss relative to before growth (nats)", labelpad=1)
    axes.set_xlabel("size after growth")
