"""Tables of benchmark results for the terminal and for Markdown, and a function that writes files of results."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfscale.bench.rows import Row
from tfscale.bench.run import Result

UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))


@dataclass(frozen=True)
class Sheet:
    """Table of benchmark results, with a title and headings."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    left: int
    """Number of left-aligned columns, which are the first columns. All other columns are right-aligned."""


def make_sheets(rows: Sequence[Row]) -> list[Sheet]:
    """Return one table per part of the benchmark."""
    parts = dict.fromkeys(row.part for row in rows)
    return [_sheet(part, [row for row in rows if row.part == part]) for part in parts]


def _sheet(part: str, rows: Sequence[Row]) -> Sheet:
    shown = list(dict.fromkeys(name for row in rows for name in row.figures))
    headings = ("case", "contestant", "median", "quartiles", "rounds", *(_heading(name) for name in shown))
    cells: list[tuple[str, ...]] = [
        (row.case, row.name, *_times(row), *(_figure(name, row.figures.get(name)) for name in shown)) for row in rows
    ]
    return Sheet(part, headings, cells, left=2)


def _times(row: Row) -> tuple[str, str, str]:
    if not row.seconds:
        return "", "", ""
    unit, size = next((unit for unit in UNITS if row.median >= unit[1]), UNITS[-1])
    low, high = (f"{each / size:.3g}" for each in row.quartiles)
    return f"{row.median / size:.3g} {unit}", f"{low}–{high}", str(len(row.seconds))


def _heading(name: str) -> str:
    words = name.replace("_per_", "/").replace("_", " ").replace("tflops", "TFLOP/s")
    return f"{words.removesuffix('bytes').strip() or 'size'}, MB" if words.endswith("bytes") else words


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name.endswith("bytes"):
        return f"{value / 1e6:,.1f}"
    if "share" in name:
        return f"{value:.0%}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def to_markdown(result: Result, more: Sequence[Sheet] = (), remark: str = "") -> str:
    """Return a benchmark result as a Markdown page, with a remark above the tables and `more` tables below them."""
    about = result.machine
    lines = [
        f"# Benchmark on {about['device']}",
        "",
        f"{about['processor']}, {about['cores']} cores, {about['threads']} threads, {about['memory'] / 2**30:.0f} GiB; "
        f"{about['precision']}; torch {about['packages']['torch']}, Python {about['python']}; "
        f"load {about['load']:.1f} at the start; {about['time']}; commit {about['commit']}"
        f"{'; --quick' if about['quick'] else ''}.",
        "Contestants take turns, with the allocator settings of a training process unless their name says otherwise. "
        "Times are medians with quartiles. The peak is the speed of the matrix product in the same rounds.",
        *([remark] if remark else []),
    ]
    for sheet in (*make_sheets(result.rows), *more):
        rule = [":--"] * sheet.left + ["--:"] * (len(sheet.headings) - sheet.left)
        lines += ["", f"## {sheet.title}", ""]
        lines += [f"| {' | '.join(cells)} |" for cells in (sheet.headings, rule, *sheet.rows)]
    if result.notes:
        lines += ["", "## Notes", "", *(f"- {note.part}: {note.words}" for note in result.notes)]
    return "\n".join(lines) + "\n"


def write_files(folder: Path, device: str, contents: Mapping[str, bytes]) -> list[Path]:
    """Write a file bench_<device><suffix> for each suffix and content in `contents`, and return the paths."""
    stem = f"bench_{re.sub(r'[^a-z0-9]+', '_', device.lower()).strip('_')}"
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, content in contents.items():
        (folder / f"{stem}{suffix}").write_bytes(content)
    return [folder / f"{stem}{suffix}" for suffix in contents]
