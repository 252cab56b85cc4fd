"""A comparison as one page of HTML that needs nothing else: no network, no other file.

`page.html` is the template; this module collects what it shows.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tfscale.analysis.compared import Comparison
from tfscale.analysis.curves import Totals
from tfscale.analysis.formats import (
    COST_MEANING,
    COSTS,
    PUBLISHED,
    RESULTS,
    cost_header,
    costs,
    meaning,
    published_rows,
    results,
)
from tfscale.analysis.records import StageRecord
from tfscale.analysis.report import figures
from tfscale.analysis.style import render
from tfscale.analysis.table import Row
from tfscale.analysis.words import UNITS, basis, verdicts, with_interval
from tfscale.text import count

ENVIRONMENT = ("python", "platform", "device", "precision", "threads", "commit")

FIGURES = {
    "figure": "Held-out perplexity over cumulative compute, and what each growth did to the loss",
    "figure_time": "Held-out perplexity over cumulative device-seconds",
    "figure_tokens": "Held-out perplexity over cumulative training tokens",
    "costs": "The three costs of each arm: cumulative, marginal, family",
    "lineage": "Where each model came from",
}

Cell = tuple[str | Sequence[str], Any]
"""The text shown, or the keys of the stages linked to, and the value that the column is sorted by."""


@dataclass(frozen=True)
class Section:
    """A part of the page: figures, then a table, then a note, as far as there are any."""

    name: str
    title: str
    figures: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    note: str = ""


def page(comparison: Comparison, records: Sequence[StageRecord], command: str, configuration: str) -> str:
    """Write the page.

    Args:
        command: the line that makes the comparison again, with everything that it rests on.
        configuration: the composed experiment, as text.

    Raises:
        ValueError: nothing measured yet.
    """
    sections = [
        Section("verdicts", "Verdicts", note=" ".join(basis(comparison.table))),
        Section("figure", "Figure", ["figure"]),
        _results(comparison),
        _costs(comparison),
        _growths(comparison),
        _fits(comparison),
        _published(comparison),
        Section("time", "Time and tokens", ["figure_time", "figure_tokens"]),
        Section("lineage", "Lineage", ["lineage"]),
        Section("stages", "Stages"),
        _environments(records),
        Section("reproduce", "How to reproduce each number"),
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["to_json"] = lambda value: json.dumps(value, indent=2)
    return environment.get_template("page.html").render(
        title=comparison.heading,
        sections=[section for section in sections if section.rows or not section.header],
        verdicts=verdicts(comparison.table),
        captions=FIGURES,
        drawn={name: base64.b64encode(render(each, "svg")).decode() for name, each in figures(comparison)},
        records=records,
        command=command,
        configuration=configuration,
    )


def _results(comparison: Comparison) -> Section:
    table = comparison.table
    rows = [
        [*_cells(texts, _result_values(row)), (row.rests_on, " ".join(row.keys))]
        for row, texts in zip(table.rows, results(table), strict=True)
    ]
    note = meaning(table).replace("*", "").replace("`", "")
    return Section("results", "Results", header=[*RESULTS, "Rests on"], rows=rows, note=note)


def _result_values(row: Row) -> list[Any]:
    compute, perplexity = row.equal_compute, row.equal_perplexity
    return [
        row.parameters,
        row.title,
        row.parameters,
        row.marginal and row.marginal.tokens,
        row.perplexity,
        row.bits_per_byte,
        None if row.shared else compute and compute.difference,
        None if row.shared else perplexity and perplexity.speed_up,
        None if row.shared else perplexity and perplexity.saving,
    ]


def _costs(comparison: Comparison) -> Section:
    table = comparison.table
    rows = [_cells(texts, _cost_values(row)) for row, texts in zip(table.rows, costs(table), strict=True)]
    return Section("costs", "Costs", ["costs"], cost_header(), rows, COST_MEANING.replace("*", ""))


def _cost_values(row: Row) -> list[Any]:
    amounts: list[Totals | None] = [getattr(row, cost) for cost in COSTS]
    return [row.parameters, row.title, *(total.of(unit) if total else None for unit in UNITS for total in amounts)]


def _growths(comparison: Comparison) -> Section:
    header = ["Grown to", "Stage", "Seed", "Loss before", "Right after", "Change", "End of stage", "Tokens to recover"]
    rows = []
    for event in comparison.growths:
        start = [event.size, event.key, "" if event.seed is None else str(event.seed)]
        values = [event.before, event.after.loss, event.after.loss - event.before, event.end, event.tokens_to_recover]
        before, after, change, end, recovery = values
        texts = [_shown(before), _shown(after), _shown(change, "+.4f"), _shown(end), count(recovery)]
        rows.append(_cells([*start, *texts], [*start, *values]))
    note = "Losses on the held-out text, nats per token. To recover: to come back below the loss before, for good."
    return Section("growths", "Growths", header=header, rows=rows, note=note)


def _fits(comparison: Comparison) -> Section:
    rows = []
    for law in comparison.laws:
        title = next(arm.title for arm in comparison.arms if arm.name == law.arm)
        irreducible, exponent = law.intervals
        texts = [
            with_interval(law.irreducible, irreducible, ".3f"),
            f"{law.coefficient:.3f}",
            f"{law.unit:.3g}",
            with_interval(law.exponent, exponent, ".3f"),
            str(len(law.compute)),
        ]
        values = [law.irreducible, law.coefficient, law.unit, law.exponent, len(law.compute)]
        rows.append(_cells([title, *texts], [title, *values]))
    note = (
        "loss = E + A (C / unit)^-alpha through each arm's frontier: fitted, not measured, and not used for any other "
        "number here. [low, high]: 95% of refits to residuals drawn with replacement, given that the form is right."
    )
    return Section("fits", "Fits", header=["Arm", "E", "A", "Unit of C", "alpha", "Points"], rows=rows, note=note)


def _published(comparison: Comparison) -> Section:
    rows = [_cells(row, row) for row in published_rows(comparison.published)]
    note = "On other machines and another cut of the text: to be seen beside the runs, and not compared with them."
    return Section("published", "Published points", header=PUBLISHED, rows=rows, note=note)


def _environments(records: Sequence[StageRecord]) -> Section:
    """List each environment once, with the stages that were trained in it."""
    found: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        if record.environment:
            packages = ", ".join(
                f"{name} {version}" for name, version in record.environment.get("packages", {}).items()
            )
            values = (*(str(record.environment.get(name, "")) for name in ENVIRONMENT), packages)
            found.setdefault(values, []).append(record.key[:6])
    rows = [_cells([*values, " ".join(keys)], [*values, len(keys)]) for values, keys in found.items()]
    header = [*(name.capitalize() for name in ENVIRONMENT), "Packages", "Stages"]
    return Section("environment", "Environment", header=header, rows=rows)


def _cells(texts: Sequence[str], values: Sequence[Any]) -> list[Cell]:
    return list(zip(texts, values, strict=True))


def _shown(value: float | None, form: str = ".4f") -> str:
    return "" if value is None else f"{value:{form}}"
