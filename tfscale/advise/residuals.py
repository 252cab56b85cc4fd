"""Figure of the residuals of scaling laws, which shows whether the forms of the laws hold for the measured runs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfscale.advise.law import Law
from tfscale.analysis.intervals import Array
from tfscale.analysis.style import GREY, INK, SMALL, WIDTH, blank, drawing, tidy

COLUMNS = 3
ROW = 1.4
"""Height of a row of panels in inches."""
MARGIN = 0.2
LIMIT = 1.2
"""Upper limit of the vertical axis, as a multiple of the largest absolute residual of all laws."""
MARKERS = "osDv^PX*"
NARROW = 30.0
"""Every value on the horizontal axis is labelled if the ratio of the largest to the smallest value is below this
number."""


def residual_figure(laws: Mapping[str, Law]) -> Any:
    """Draw the residuals of laws and return a `matplotlib.figure.Figure`. The figure has one panel for each law and
    each variable that is a term of this law. `laws` maps names to laws. A residual is the logarithm of the measured
    loss minus the logarithm of the fitted loss, in percent. Runs with the same seed have the same marker."""
    drawn = [(name, law, int(place)) for name, law in laws.items() for place in np.flatnonzero(law.measured.varied)]
    most = LIMIT * max(np.abs(_residuals(law)).max() for law in laws.values())
    rows = -(-len(drawn) // COLUMNS)
    with drawing():
        figure = blank(WIDTH, MARGIN + ROW * rows)
        panels = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).flat
        for axes, (name, law, place) in zip(panels, drawn, strict=False):
            _draw(axes, law, place)
            axes.set_ylim(-most, most)
            axes.set_title(name, fontsize=SMALL + 0.4, loc="left")
        for axes in panels[len(drawn) :]:
            axes.set_visible(False)
        figure.supylabel("residual of the loss in %", fontsize=SMALL + 0.4)
    return figure


def _residuals(law: Law) -> Array:
    measured = law.measured
    return np.asarray(100 * (np.log(measured.losses) - np.log(law.loss(measured.values))))


def _draw(axes: Any, law: Law, place: int) -> None:
    values, residuals, seeds = law.measured.values[:, place], _residuals(law), np.array(law.measured.seeds)
    axes.axhline(0, color=GREY, linewidth=0.6)
    for number, seed in enumerate(np.unique(seeds)):
        marker = MARKERS[number % len(MARKERS)]
        of_seed = seeds == seed
        axes.plot(values[of_seed], residuals[of_seed], marker, markersize=3, fillstyle="none", color=INK, mew=0.7)
    axes.set_xscale("log")
    axes.minorticks_off()
    if values.max() < NARROW * values.min():
        axes.set_xticks(np.unique(values), [f"{value:.3g}" for value in np.unique(values)])
    axes.set_xlabel(law.measured.names[place], fontsize=SMALL + 0.4)
    tidy(axes)
