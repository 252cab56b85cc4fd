"""A comparison on disk: figure and table, each file whole or as it was before."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tfscale.analysis.curves import Measure, read_arms
from tfscale.analysis.figure import comparison_figure, render
from tfscale.analysis.formats import to_csv, to_json, to_markdown
from tfscale.analysis.table import Table, compare
from tfscale.schedule.arms import Arm


@dataclass(frozen=True)
class Written:
    """A comparison and where it was written."""

    table: Table
    png: Path
    svg: Path
    csv: Path
    json: Path
    markdown: Path


def write_comparison(arms: Iterable[Arm], folder: Path, title: str, measure: Measure = "flops") -> Written:
    """Compares what the arms' folders hold and writes `figure.png`, `figure.svg`, `table.csv`, `table.json` and
    `table.md` into `folder`, which is made if need be.

    `title` names the schedule and the corpus; the held-out tokens are added to it.

    Raises:
        ValueError: what `read_arms` raises, no chain among the arms, or nothing measured yet; nothing is written then.
        OSError: the folder cannot be written.
    """
    curves = read_arms(arms)
    table = compare(curves, measure)
    heldout = f", {table.heldout_tokens:,} held-out tokens" if table.heldout_tokens else ""
    figure = comparison_figure(curves, title + heldout, measure)
    written = Written(
        table,
        png=folder / "figure.png",
        svg=folder / "figure.svg",
        csv=folder / "table.csv",
        json=folder / "table.json",
        markdown=folder / "table.md",
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write(written.png, render(figure, "png"))
    _write(written.svg, render(figure, "svg"))
    _write(written.csv, to_csv(table).encode())
    _write(written.json, to_json(table).encode())
    _write(written.markdown, to_markdown(table, title).encode())
    return written


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
