"""Figure panel that shows the change in loss at each growth."""

from collections.abc import Sequence
from typing import Any

from tfscale.analysis.growths import GrowthEvent
from tfscale.analysis.style import CHAIN, INK, tidy


def draw_growths(axes: Any, events: Sequence[GrowthEvent]) -> None:
    """Draw the loss right after each growth and at the end of the stage, relative to the loss before the growth."""
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
    axes.set_ylabel("loss relative to before growth (nats)", labelpad=1)
    axes.set_xlabel("size after growth")
