"""A comparison on disk: figures and tables, each file whole or as it was before."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfscale.analysis.compared import Comparison
from tfscale.analysis.curves import Measure
from tfscale.analysis.figure import comparison_figure
from tfscale.analysis.figure_costs import costs_figure
from tfscale.analysis.figure_lineage import lineage_figure
from tfscale.analysis.formats import to_csv, to_json, to_markdown
from tfscale.analysis.latex import to_latex
from tfscale.analysis.style import FIGURE_KINDS, render, styles
from tfscale.analysis.table import the_chain
from tfscale.files import write_atomically

OTHER_MEASURES: dict[str, Measure] = {"figure_time": "device_seconds", "figure_tokens": "tokens"}


def write_comparison(comparison: Comparison, folder: Path) -> tuple[Path, ...]:
    """Writes `table.csv`, `.json`, `.md` and `.tex`, and every figure as PNG, SVG and PDF, into `folder`, which is made
    if need be: `figure` in the comparison's measure, `figure_time` and `figure_tokens`, `costs`, `lineage`.

    Returns:
        The files, the figure and the tables first.

    Raises:
        ValueError: nothing measured yet; nothing is written then.
        OSError: the folder cannot be written.
    """
    contents = {
        f"{name}.{kind}": render(figure, kind) for name, figure in figures(comparison) for kind in FIGURE_KINDS
    } | {
        "table.csv": to_csv(comparison.table).encode(),
        "table.json": to_json(comparison).encode(),
        "table.md": to_markdown(comparison).encode(),
        "table.tex": to_latex(comparison).encode(),
    }
    first = [name for name in contents if name.startswith(("figure.", "table."))]
    names = [*first, *(name for name in contents if name not in first)]
    for name in names:
        write_atomically(folder / name, contents[name])
    return tuple(folder / name for name in names)


def figures(comparison: Comparison) -> Iterator[tuple[str, Any]]:
    """The figures by name, each a `matplotlib.figure.Figure`.

    Raises:
        ValueError: nothing measured yet.
    """
    arms, published, measure = comparison.arms, comparison.published, comparison.measure
    looks = styles(arms, the_chain(arms))
    yield "figure", comparison_figure(arms, comparison.heading, measure, comparison.laws, published)
    for name, other in OTHER_MEASURES.items():
        # Time on another machine is no time here.
        shown = published if other == "tokens" else ()
        yield name, comparison_figure(arms, comparison.heading, other, published=shown, with_growths=False)
    yield "costs", costs_figure(comparison.table, looks, measure)
    yield "lineage", lineage_figure(arms, looks)
