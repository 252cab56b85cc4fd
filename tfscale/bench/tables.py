"""The result as tables of words: for the terminal, and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from tfscale.bench.rows import Row, Rows, Verdict
from tfscale.bench.run import Result

HEADINGS = {
    "share_of_peak": "of peak",
    "tflops": "TFLOP/s",
    "tokens_per_second": "tokens/s",
    "tokens_per_core_second": "tok/s/core",
    "of_tokenizer": "share",
    "parameters": "parameters",
    "kept_bytes": "kept, MB",
    "peak_bytes": "peak, MB",
    "worker_peak_bytes": "worker, MB",
    "bytes": "MB",
    "training_seconds": "trained, s",
    "growth_seconds": "grown, s",
    "training_share": "share",
}
"""Of the figures that are shown, in their order; the JSON has all."""
TARGETS = "targets"
"""The title of the verdicts' table."""


@dataclass(frozen=True)
class Sheet:
    """A table; its first `left` columns align left."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    left: int


def sheets(result: Result) -> list[Sheet]:
    """A table for every part, and one of the verdicts."""
    parts = list(dict.fromkeys(row.part for row in result.rows))
    measured = [_of_part(part, Rows(result.rows).of(part)) for part in parts]
    return [*measured, _of_verdicts(result.verdicts)] if result.verdicts else measured


def _of_part(part: str, rows: Sequence[Row]) -> Sheet:
    shown = [name for name in HEADINGS if any(name in row.figures for row in rows)]
    headings = ("case", "what", "median", "quartiles", "rounds", *(HEADINGS[name] for name in shown))
    cells: list[tuple[str, ...]] = [
        (row.case, row.name, *_times(row), *(figure(name, row.figures.get(name)) for name in shown)) for row in rows
    ]
    return Sheet(part, headings, cells, left=2)


def _times(row: Row) -> tuple[str, str, str]:
    if not row.seconds:
        return "", "", ""
    unit, size = unit_of(row.median)
    low, high = (f"{each / size:.3g}" for each in row.quartiles)
    return f"{row.median / size:.3g} {unit}", f"{low}–{high}", str(len(row.seconds))


def unit_of(seconds: float) -> tuple[str, float]:
    """The unit that a time is told in, and its seconds."""
    units = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
    return next((unit for unit in units if seconds >= unit[1]), units[-1])


def figure(name: str, value: float | None) -> str:
    """A figure in the unit of its heading."""
    if value is None:
        return ""
    if name.endswith("bytes"):
        return f"{value / 1e6:,.1f}"
    if name in ("share_of_peak", "of_tokenizer", "training_share"):
        return f"{value:.0%}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _of_verdicts(verdicts: Sequence[Verdict]) -> Sheet:
    cells: list[tuple[str, ...]] = [
        (
            verdict.part,
            verdict.name,
            "reached" if verdict.reached else "not reached",
            f"{verdict.value:.3g}",
            f"{'≥' if verdict.at_least else '≤'} {verdict.target:g}",
        )
        for verdict in verdicts
    ]
    return Sheet(TARGETS, ("part", "what", "", "here", "target"), cells, left=3)


def markdown(result: Result) -> str:
    """All of it as a page."""
    about = result.machine
    lines = [
        f"# Benchmark on {about['device']}",
        "",
        f"{about['processor']}, {about['cores']} cores, {about['threads']} threads, {about['memory'] / 2**30:.0f} GiB; "
        f"{about['precision']}; torch {about['packages']['torch']}, Python {about['python']}; "
        f"load {about['load']:.1f} at the start; {about['time']}; commit {about['commit']}"
        f"{'; --quick' if about['quick'] else ''}.",
        "Contestants take turns. On the CPU, whole models are processes of their own: ours and the Transformer "
        "with the allocator's settings that a stage has, the others with glibc's own; all of Pattention's forms "
        "have a stage's, but for the one that says otherwise. Times are medians with quartiles; the peak is the "
        "matrix product's in those rounds.",
    ]
    for sheet in sheets(result):
        rule = [":--"] * sheet.left + ["--:"] * (len(sheet.headings) - sheet.left)
        lines += ["", f"## {sheet.title}", ""]
        lines += [f"| {' | '.join(cells)} |" for cells in (sheet.headings, rule, *sheet.rows)]
    if result.notes:
        lines += ["", "## Left out", "", *(f"- {note.part}: {note.words}" for note in result.notes)]
    return "\n".join(lines) + "\n"
