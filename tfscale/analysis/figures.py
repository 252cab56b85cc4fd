"""Figures of a comparison: perplexity over compute, device-seconds and tokens, and the total cost of all sizes."""

from collections.abc import Iterator
from typing import Any

from tfscale.analysis.comparison import Comparison
from tfscale.analysis.figure import comparison_figure
from tfscale.analysis.figure_family import family_figure
from tfscale.analysis.style import styles
from tfscale.analysis.table import the_chain

CAPTIONS = {
    "figure": "Validation perplexity over cumulative compute, and the change in loss at each growth",
    "figure_time": "Validation perplexity over cumulative device-seconds",
    "figure_tokens": "Validation perplexity over cumulative training tokens",
    "costs": "Cost of all sizes together, at equal perplexity per size",
}


def figures(comparison: Comparison) -> Iterator[tuple[str, Any]]:
    """Yield pairs of a figure's name, such as `figure_time`, and its `matplotlib.figure.Figure`.

    Raises:
        ValueError: nothing has been measured yet.
    """
    arms, published, heading = comparison.arms, comparison.published, comparison.heading
    yield "figure", comparison_figure(arms, heading, comparison.measure, comparison.laws, published)
    # Time on other machines is not comparable, so published points are omitted.
    yield "figure_time", comparison_figure(arms, heading, "device_seconds", with_growths=False)
    yield "figure_tokens", comparison_figure(arms, heading, "tokens", published=published, with_growths=False)
    chain = the_chain(arms)
    yield "costs", family_figure(comparison.families, chain, styles(arms, chain), comparison.price)
