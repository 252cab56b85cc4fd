"""Figure of the residuals of scaling laws, which shows whether the forms of the laws hold for the measured runs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfscale.advise.law import Law
from tfscale.analysis.style import GREY, INK, SMALL, WIDTH, blank, drawing, tidy

ROW = 1.35
"""Height of the panels of a law in inches."""
MARGIN = 0.35
LIMIT = 1.2
"""Range of the vertical axis, as a multiple of the largest residual of all laws."""


def residual_figure(laws: Mapping[str, Law]) -> Any:
    """Draw the residuals of laws, by the names of the laws. Each law is a row of panels, one per variable of the law.

    Residuals are the logarithm of the measured loss minus that of the fitted loss, in percent. Runs of the same seed
    have the same marker.

    Returns:
        a `matplotlib.figure.Figure`.
    """
    columns = max(len(_varied(law)) for law in laws.values())
    most = LIMIT * max(np.abs(_residuals(law)).max() for law in laws.values())
    with drawing():
        figure = blank(WIDTH, MARGIN + ROW * len(laws))
        panels = figure.subplots(len(laws), columns, sharey=True, squeeze=False)
        for row, (name, law) in zip(panels, laws.items(), strict=True):
            variables = _varied(law)
            for axes in row[len(variables) :]:
                axes.set_visible(False)
            for axes, place in zip(row, variables, strict=False):
                _draw(axes, law, place)
                axes.set_ylim(-most, most)
            row[0].set_title(f"{name} ({len(law.measured.losses)} runs)", fontsize=SMALL + 0.6, loc="left", color=INK)
        figure.supylabel("residual of the loss in %", fontsize=SMALL + 0.4)
    return figure


def _varied(law: Law) -> list[int]:
    return [int(place) for place in np.flatnonzero(law.measured.varied)]


def _residuals(law: Law) -> Any:
    measured = law.measured
    return 100 * (np.log(measured.losses) - np.log(law.loss(measured.values)))


def _draw(axes: Any, law: Law, place: int) -> None:
    """Draw the residuals of a law over one of its variables."""
    values, residuals, seeds = law.measured.values[:, place], _residuals(law), np.array(law.measured.seeds)
    axes.axhline(0, color=GREY, linewidth=0.6)
    for seed, marker in zip(sorted(set(law.measured.seeds)), "osDv^PX*" * len(seeds), strict=False):
        of_seed = seeds == seed
        axes.plot(values[of_seed], residuals[of_seed], marker, markersize=3, fillstyle="none", color=INK, mew=0.7)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xlabel(law.measured.names[place], fontsize=SMALL + 0.4)
    tidy(axes)
