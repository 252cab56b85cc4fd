"""A comparison as one page of HTML that needs nothing else: no network, no other file."""

import base64
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

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
from tfscale.analysis.words import UNITS, basis, number, verdicts, with_interval

TEMPLATE = Path(__file__).with_name("page.html")
ENVIRONMENT = ("python", "platform", "device", "precision", "threads", "commit")

FIGURES = {
    "figure": "Held-out perplexity over cumulative compute, and what each growth did to the loss",
    "figure_time": "Held-out perplexity over cumulative device-seconds",
    "figure_tokens": "Held-out perplexity over cumulative training tokens",
    "costs": "The three costs of each arm: cumulative, marginal, family",
    "lineage": "Where each model came from",
}


def page(comparison: Comparison, records: Sequence[StageRecord], command: str, configuration: str) -> str:
    """The page.

    Args:
        command: the line that makes the comparison again, with everything that it rests on.
        configuration: the composed experiment, as text.

    Raises:
        ValueError: nothing measured yet.
    """
    drawn = {name: render(figure, "svg") for name, figure in figures(comparison)}
    sections = {
        "verdicts": ("Verdicts", _verdicts(comparison)),
        "figure": ("Figure", _figure("figure", drawn)),
        "results": ("Results", _results(comparison)),
        "costs": ("Costs", _costs(comparison, drawn)),
        "growths": ("Growths", _growths(comparison)),
        "fits": ("Fits", _fits(comparison)),
        "published": ("Published points", _published(comparison)),
        "time": ("Time and tokens", _pair("figure_time", "figure_tokens", drawn)),
        "lineage": ("Lineage", _figure("lineage", drawn)),
        "stages": ("Stages", _stages(records)),
        "environment": ("Environment", _environments(records)),
        "reproduce": ("How to reproduce each number", _reproduce(command, configuration)),
    }
    shown = {name: section for name, section in sections.items() if section[1]}
    links = " ".join(f'<a href="#{name}">{escape(title)}</a>' for name, (title, _) in shown.items())
    body = [
        f"<h1>{escape(comparison.heading)}</h1>",
        f"<nav>{links}</nav>",
        *(f'<section id="{name}"><h2>{escape(title)}</h2>{text}</section>' for name, (title, text) in shown.items()),
    ]
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=escape(comparison.heading), body="\n".join(body))


def _verdicts(comparison: Comparison) -> str:
    items = "".join(f"<li>{escape(verdict)}</li>" for verdict in verdicts(comparison.table))
    return f"<ul>{items}</ul>{_note(' '.join(basis(comparison.table)))}"


def _results(comparison: Comparison) -> str:
    rows = comparison.table.rows
    cells = [
        [*_cells(texts, _result_values(row)), _keys_cell(row)]
        for row, texts in zip(rows, results(comparison.table), strict=True)
    ]
    return _table([*RESULTS, "Rests on"], cells) + _note(meaning(comparison.table).replace("*", "").replace("`", ""))


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


def _keys_cell(row: Row) -> str:
    links = " ".join(f'<a href="#stage-{key}">{key[:6]}</a>' for key in row.rests_on)
    return f'<td data-sort="{" ".join(row.keys)}">{links}</td>'


def _costs(comparison: Comparison, drawn: dict[str, bytes]) -> str:
    table = comparison.table
    cells = [_cells(texts, _cost_values(row)) for row, texts in zip(table.rows, costs(table), strict=True)]
    return _figure("costs", drawn) + _table(cost_header(), cells) + _note(COST_MEANING.replace("*", ""))


def _cost_values(row: Row) -> list[Any]:
    amounts: list[Totals | None] = [getattr(row, cost) for cost in COSTS]
    return [row.parameters, row.title, *(total.of(unit) if total else None for unit in UNITS for total in amounts)]


def _growths(comparison: Comparison) -> str:
    header = ["Grown to", "Stage", "Seed", "Loss before", "Right after", "Change", "End of stage", "Tokens to recover"]
    rows = []
    for event in comparison.growths:
        values = [event.before, event.after.loss, event.after.loss - event.before, event.end, event.tokens_to_recover]
        texts = [*(_shown(value, "+.4f" if i == 2 else ".4f") for i, value in enumerate(values[:4])), number(values[4])]
        start = [event.size, event.key, "" if event.seed is None else str(event.seed)]
        rows.append(_cells([*start, *texts], [*start, *values]))
    note = "Losses on the held-out text, nats a token. To recover: to come back below the loss before, for good."
    return _table(header, rows) + _note(note) if rows else ""


def _fits(comparison: Comparison) -> str:
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
    return _table(["Arm", "E", "A", "Unit of C", "alpha", "Points"], rows) + _note(note) if rows else ""


def _published(comparison: Comparison) -> str:
    rows = published_rows(comparison.published)
    note = "On other machines and another cut of the text: to be seen beside the runs, and not compared with them."
    return _table(PUBLISHED, [_cells(row, [*row]) for row in rows]) + _note(note) if rows else ""


def _stages(records: Sequence[StageRecord]) -> str:
    return "".join(
        f'<details id="stage-{record.key}"><summary><code>{escape(record.folder)}</code>, seed {record.seed}: '
        f"{escape('; '.join(record.arms))}{_parent(record)}</summary>"
        f"<pre>{escape(record.spec) or 'not begun'}</pre>"
        f"<pre>{escape(json.dumps(record.environment, indent=2))}</pre></details>"
        for record in records
    )


def _parent(record: StageRecord) -> str:
    return f', out of <a href="#stage-{record.parent}">{record.parent}</a>' if record.parent else ""


def _environments(records: Sequence[StageRecord]) -> str:
    """Each environment once, with the stages that were trained in it."""
    found: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        if record.environment:
            packages = ", ".join(
                f"{name} {version}" for name, version in record.environment.get("packages", {}).items()
            )
            values = (*(str(record.environment.get(name, "")) for name in ENVIRONMENT), packages)
            found.setdefault(values, []).append(record.key[:6])
    rows = [_cells([*values, " ".join(keys)], [*values, len(keys)]) for values, keys in found.items()]
    return _table([*(name.capitalize() for name in ENVIRONMENT), "Packages", "Stages"], rows) if rows else ""


def _reproduce(command: str, configuration: str) -> str:
    return (
        f"<p>All of it, trained where it is not there yet:</p><pre>{escape(command)}</pre>"
        "<p>One stage: delete its folder and run that again. A stage's name is a hash of all that it computes, so on "
        "the same device and versions the numbers come back bit for bit. Every row above names the stages that it "
        "rests on; <code>table.csv</code> and <code>table.json</code>, which <code>tfscale compare</code> writes "
        "beside this page, hold the same in full precision.</p>"
        f"<details><summary>The composed configuration</summary><pre>{escape(configuration)}</pre></details>"
    )  # fmt: skip


def _figure(name: str, drawn: dict[str, bytes]) -> str:
    source = base64.b64encode(drawn[name]).decode()
    caption = escape(FIGURES[name])
    return f'<figure><img alt="{caption}" src="data:image/svg+xml;base64,{source}"></figure>'


def _pair(left: str, right: str, drawn: dict[str, bytes]) -> str:
    return f'<div class="pair">{_figure(left, drawn)}{_figure(right, drawn)}</div>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in header)
    lines = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cells(texts: Sequence[str], values: Sequence[Any]) -> list[str]:
    """Cells that show a text and sort by a value; what is not known sorts last."""
    return [f'<td data-sort="{_sortable(v)}">{escape(text)}</td>' for text, v in zip(texts, values, strict=True)]


def _sortable(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return escape(str(value))


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
