"""Summary of the findings of the check in Markdown."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cuda.findings import KERNELS, MACHINE, Bounded, Ended, Failed, Finding, Measured, read

SUMMARY = "summary.md"


def summarize(out: Path, parts: Sequence[str]) -> tuple[str, bool]:
    """Write OUT/summary.md.

    Args:
        parts: names of the parts that are expected to have run.

    Returns:
        The summary, and True if every part finished, no measurement failed and all bounds are met.
    """
    findings = sorted(read(out), key=lambda finding: _place(finding.part, parts))
    ended = {finding.part: finding for finding in findings if isinstance(finding, Ended)}
    missing = [part for part in parts if part not in ended]
    bounds = [finding for finding in findings if isinstance(finding, Bounded)]
    failures = [finding for finding in findings if isinstance(finding, Failed)]
    good = not missing and not failures and all(end.ok for end in ended.values()) and all(bound.ok for bound in bounds)
    verdict = "Every part finished, and all bounds are met." if good else _faults(ended, missing, bounds, failures)
    text = "\n".join(["# CUDA check", "", verdict, "", *_machine(findings), *_sections(findings, ended, missing), ""])
    (out / SUMMARY).write_text(text, encoding="utf-8")
    return text, good


def _place(part: str, parts: Sequence[str]) -> int:
    return parts.index(part) if part in parts else len(parts)


def _machine(findings: Sequence[Finding]) -> Iterator[str]:
    for each in findings:
        if isinstance(each, Measured) and each.name == MACHINE:
            yield from (f"Machine: {_figures(each.figures)}.", "")


def _faults(
    ended: dict[str, Ended], missing: Sequence[str], bounds: Sequence[Bounded], failures: Sequence[Failed]
) -> str:
    broken = sum(not bound.ok for bound in bounds)
    stopped = sum(not end.ok for end in ended.values()) + len(missing)
    return (
        f"FAILED: {broken} of {len(bounds)} bounds are not met, {len(failures)} measurements failed, "
        f"{stopped} of {len(ended) + len(missing)} parts did not finish."
    )


def _sections(findings: Sequence[Finding], ended: dict[str, Ended], missing: Sequence[str]) -> Iterator[str]:
    yield from table("Parts", ("part", "end", "seconds"), [
        *([part, _marked(end.ok, end.how, end.how), f"{end.seconds:.1f}"] for part, end in ended.items()),
        *([part, _marked(False, "", "never started"), ""] for part in missing),
    ])  # fmt: skip
    yield from table("Bounds", ("part", "measurement", "value", "bound", "result"), [
        [each.part, each.name, f"{each.value:.3g}", f"{each.bound:.3g}", _marked(each.ok, "met", "broken")]
        for each in findings if isinstance(each, Bounded)
    ])  # fmt: skip
    failed = [[each.part, each.name, each.error] for each in findings if isinstance(each, Failed)]
    stopped = [[end.part, end.how, end.log] for end in ended.values() if not end.ok]
    if failed or stopped:
        yield from table("Failures", ("part", "measurement", "error"), [*failed, *stopped])
    yield from table("Measurements", ("part", "measurement", "figures"), [
        [each.part, each.name, _figures(each.figures)] for each in findings if isinstance(each, Measured)
    ])  # fmt: skip
    for each in findings:
        if isinstance(each, Measured) and KERNELS in each.figures:
            rows = [[str(calls), f"{milliseconds:.2f}", name] for name, calls, milliseconds in each.figures[KERNELS]]
            yield from table(f"Kernels of {each.part}, {each.name}", ("calls", "milliseconds", "kernel"), rows)


def _marked(ok: bool, good: str, bad: str) -> str:
    return good if ok else f"**{bad.upper()}**"


def _figures(figures: dict[str, Any]) -> str:
    shown = {name: value for name, value in figures.items() if not isinstance(value, list | dict) and value is not None}
    return ", ".join(f"{name} {_short(value)}" for name, value in shown.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Return the lines of a heading and a Markdown table. The cells of each column are padded to equal width, except in
    the last column, which may be long."""
    cells = [[" ".join(cell.replace("|", "/").split()) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head) - 1)] + [len(head[-1])]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return iter([f"## {title}", "", lines[0], rule, *lines[1:], ""])
