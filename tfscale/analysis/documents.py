"""Formatting of a comparison of arms as Markdown, as LaTeX, and as a self-contained HTML page.

The templates of the documents are in templates/. This module provides the values that the templates show.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from tfscale.analysis.answer import Answer, answer_of
from tfscale.analysis.caption import caption
from tfscale.analysis.comparison import Comparison
from tfscale.analysis.family_words import family_sentences
from tfscale.analysis.figures import CAPTIONS, figures
from tfscale.analysis.records import StageRecord
from tfscale.analysis.results import (
    COST_MEANING,
    FAMILIES,
    PUBLISHED,
    RESULTS,
    Cell,
    cost_header,
    costs,
    family_rows,
    meaning,
    published_rows,
    results,
    texts,
)
from tfscale.analysis.style import render
from tfscale.analysis.words import UNITS, basis, verdicts, with_interval
from tfscale.text import count

ENVIRONMENT = ("python", "platform", "device", "precision", "threads", "commit")


@dataclass(frozen=True)
class Section:
    """Section of the HTML page with optional figures, table and note, in this order."""

    name: str
    title: str
    figures: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[tuple[str | Sequence[str], Any]]] = ()
    """Rows of cells. A cell contains a text, or keys of stages to link to, and the value by which its column is
    sorted."""
    note: str = ""


TEMPLATES = Path(__file__).parent / "templates"
LATEX_SYNTAX = {"variable_start_string": "<<", "variable_end_string": ">>", "block_start_string": "<%",
                "block_end_string": "%>", "comment_start_string": "<#", "comment_end_string": "#>"}  # fmt: skip
"""Template delimiters for LaTeX, which replace braces because LaTeX uses them."""
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    }
)
"""LaTeX escape sequences of special characters."""


def to_markdown(comparison: Comparison) -> str:
    """Return the short answer, the results, the costs and the verdicts of a comparison as Markdown."""
    table, template = comparison.table, _environment().get_template("table.md")
    return template.render(
        _values(comparison),
        heldout=f" on {table.heldout_tokens:,} validation tokens" if table.heldout_tokens else "",
        several_seeds=any(len(row.keys) > 1 for row in table.rows),
        unit=UNITS[table.measure],
        costs=texts(costs(table)),
        cost_header=cost_header(table),
        family_rows=family_rows(comparison.families, comparison.price),
        FAMILIES=FAMILIES,
        published=published_rows(comparison.published),
    )


def to_latex(comparison: Comparison) -> str:
    """Return the results of a comparison as a LaTeX `table`, for `\\input` in a document that loads booktabs."""
    environment = _environment(**LATEX_SYNTAX)
    environment.filters["tex"] = lambda text: text.translate(LATEX)
    return environment.get_template("table.tex").render(_values(comparison))


def to_html(comparison: Comparison, records: Sequence[StageRecord], command: str, configuration: str) -> str:
    """Return a comparison as a self-contained HTML page.

    Args:
        command: command line that reproduces the comparison, including all stages on which it depends.
        configuration: composed configuration of the experiment, as text.

    Raises:
        ValueError: nothing has been measured yet.
    """
    sections = [
        _answer(answer_of(comparison)),
        Section("figure", "Figure", ["figure"], note=" ".join(caption(comparison.arms))),
        _families(comparison),
        _results(comparison),
        Section("verdicts", "Verdicts", note=" ".join(basis(comparison.table))),
        _costs(comparison),
        _growths(comparison),
        _fits(comparison),
        _published(comparison),
        Section("time", "Time and tokens", ["figure_time", "figure_tokens"]),
        Section("stages", "Stages"),
        _environments(records),
        Section("reproduce", "How to reproduce each number"),
    ]
    environment = _environment()
    environment.filters["to_json"] = lambda value: json.dumps(value, indent=2)
    return environment.get_template("report.html").render(
        _values(comparison),
        sections=[section for section in sections if section.rows or not section.header],
        captions=CAPTIONS,
        drawn={name: base64.b64encode(render(each, "svg")).decode() for name, each in figures(comparison)},
        records=records,
        command=command,
        configuration=configuration,
    )


def _environment(**settings: Any) -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **settings,
    )


def _values(comparison: Comparison) -> dict[str, Any]:
    """Return the template variables that all documents use, by name."""
    table = comparison.table
    return {
        "title": comparison.title,
        "heading": comparison.heading,
        "answer": answer_of(comparison),
        "caption": " ".join(caption(comparison.arms)),
        "verdicts": verdicts(table),
        "family_verdicts": family_sentences(comparison.families, comparison.price),
        "basis": " ".join(basis(table)),
        "RESULTS": RESULTS,
        "results": texts(results(table)),
        "meaning": meaning(table),
        "COST_MEANING": COST_MEANING,
        "PUBLISHED": PUBLISHED,
    }


def _answer(answer: Answer) -> Section:
    return Section("answer", "Answer", header=["Size", *answer.arms], rows=_plain(answer.rows), note=answer.note)


def _families(comparison: Comparison) -> Section:
    rows = family_rows(comparison.families, comparison.price)
    return Section("family", "All sizes together", ["costs"], FAMILIES, _plain(rows))


def _results(comparison: Comparison) -> Section:
    table = comparison.table
    pairs = zip(table.rows, results(table), strict=True)
    rows = [[*cells, (row.rests_on, " ".join(row.keys))] for row, cells in pairs]
    note = meaning(table).replace("*", "").replace("`", "")
    return Section("results", "Results", header=[*RESULTS, "Depends on"], rows=rows, note=note)


def _costs(comparison: Comparison) -> Section:
    table = comparison.table
    note = COST_MEANING.replace("*", "").replace("`", "")
    return Section("costs", "Costs", header=cost_header(table), rows=costs(table), note=note)


def _growths(comparison: Comparison) -> Section:
    header = ["Size", "Stage", "Seed", "Loss before", "Loss after", "Change", "Loss at end", "Tokens to recover"]
    rows = []
    for event in comparison.growths:
        seed, change = "" if event.seed is None else str(event.seed), event.after.loss - event.before
        rows.append(
            [
                (event.size, event.size),
                (event.key, event.key),
                (seed, seed),
                (f"{event.before:.4f}", event.before),
                (f"{event.after.loss:.4f}", event.after.loss),
                (f"{change:+.4f}", change),
                ("" if event.end is None else f"{event.end:.4f}", event.end),
                (count(event.tokens_to_recover), event.tokens_to_recover),
            ]
        )
    note = (
        "Validation losses in nats per token, before and after each growth and at the end of the stage. Tokens to "
        "recover: training tokens until the loss no longer exceeds the loss before the growth."
    )
    return Section("growths", "Growths", header=header, rows=rows, note=note)


def _fits(comparison: Comparison) -> Section:
    rows = []
    for law in comparison.laws:
        title = next(arm.title for arm in comparison.arms if arm.name == law.arm)
        irreducible, exponent = law.intervals
        rows.append(
            [
                (title, title),
                (with_interval(law.irreducible, irreducible, ".3f"), law.irreducible),
                (f"{law.coefficient:.3f}", law.coefficient),
                (f"{law.unit:.3g}", law.unit),
                (with_interval(law.exponent, exponent, ".3f"), law.exponent),
                (str(len(law.compute)), len(law.compute)),
            ]
        )
    note = (
        "loss = E + A (C / unit)^-alpha, fitted to the frontier of each arm. Fits are not measurements and not used "
        "for other numbers. [low, high]: 95% of refits to resampled residuals of runs, if the form of the law is right."
    )
    return Section("fits", "Fits", header=["Arm", "E", "A", "Unit of C", "alpha", "Points"], rows=rows, note=note)


def _published(comparison: Comparison) -> Section:
    rows = _plain(published_rows(comparison.published))
    note = "Measured on other machines and another validation text. Shown for reference, not for comparison."
    return Section("published", "Published points", header=PUBLISHED, rows=rows, note=note)


def _environments(records: Sequence[StageRecord]) -> Section:
    """Return the section that lists each environment with the stages that were trained in it."""
    found: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        if record.environment:
            packages = ", ".join(
                f"{name} {version}" for name, version in record.environment.get("packages", {}).items()
            )
            values = (*(str(record.environment.get(name, "")) for name in ENVIRONMENT), packages)
            found.setdefault(values, []).append(record.key[:6])
    rows = [[*zip(values, values, strict=True), (" ".join(keys), len(keys))] for values, keys in found.items()]
    header = [*(name.capitalize() for name in ENVIRONMENT), "Packages", "Stages"]
    return Section("environment", "Environment", header=header, rows=rows)


def _plain(rows: Sequence[Sequence[str]]) -> list[list[Cell]]:
    """Convert rows of texts to rows of cells, whose columns are sorted by the texts."""
    return [[(text, text) for text in row] for row in rows]
