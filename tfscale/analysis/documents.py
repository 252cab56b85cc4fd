"""Documents that show a comparison: files with its tables and figures, and a self-contained HTML page. The Markdown,
LaTeX and HTML documents are rendered from the templates in `templates/`."""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from tfscale.analysis import results
from tfscale.analysis.answer import Answer, answer_of
from tfscale.analysis.caption import caption
from tfscale.analysis.comparison import Comparison
from tfscale.analysis.family_words import family_sentences
from tfscale.analysis.figure import comparison_figure
from tfscale.analysis.figure_family import family_figure
from tfscale.analysis.formats import to_csv, to_json
from tfscale.analysis.style import FIGURE_KINDS, render
from tfscale.analysis.words import UNITS, basis, verdicts, with_interval
from tfscale.files import read_object, write_atomically
from tfscale.plan.arms import Arm
from tfscale.stage import how
from tfscale.stage.environment import ENVIRONMENT_FILE
from tfscale.stage.spec import STAGE_FILE
from tfscale.text import count

CAPTIONS = {
    "figure": "Validation perplexity over cumulative compute, and the change in loss at each growth",
    "figure_time": "Validation perplexity over cumulative device-seconds",
    "figure_tokens": "Validation perplexity over cumulative training tokens",
    "costs": "Cost of all sizes together, at equal perplexity per size",
}
ENVIRONMENT = ("python", "platform", "device", "precision", "threads", "commit")


@dataclass(frozen=True)
class Section:
    """Section of the HTML page with optional figures, table and note, in this order."""

    name: str
    title: str
    figures: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[tuple[str | Sequence[str], Any]]] = ()
    """Rows of the table. Each cell is a pair. The first element is the text of the cell, or the keys of the stages to
    which the cell links. The second element is the value by which the column is sorted."""
    note: str = ""


TEMPLATES = Path(__file__).parent / "templates"
LATEX_SYNTAX = {"variable_start_string": "<<", "variable_end_string": ">>", "block_start_string": "<%",
                "block_end_string": "%>", "comment_start_string": "<#", "comment_end_string": "#>"}  # fmt: skip
"""Jinja delimiters for LaTeX templates. They contain no braces, because LaTeX uses braces."""
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    }
)
"""Translation table (`str.translate`) from special characters to LaTeX escape sequences."""


def write_comparison(comparison: Comparison, folder: Path) -> tuple[Path, ...]:
    """Write the tables and figures of a comparison to a folder, which is created if missing, and return the paths of
    the files. Each file is replaced atomically.

    The tables are `table.csv`, `table.json`, `table.md` and `table.tex`. The figures `figure`, `figure_time`,
    `figure_tokens` and `costs` are each written as PNG, SVG and PDF. `caption.txt` contains the caption of `figure`.

    Raises:
        ValueError: nothing has been measured yet; no file is written.
        OSError: the folder cannot be written.
    """
    contents = {
        "table.csv": to_csv(comparison.table).encode(),
        "table.json": to_json(comparison).encode(),
        "table.md": to_markdown(comparison).encode(),
        "table.tex": to_latex(comparison).encode(),
        "caption.txt": "\n".join([*caption(comparison.arms), ""]).encode(),
        **{f"{name}.{kind}": render(figure, kind) for name, figure in figures(comparison) for kind in FIGURE_KINDS},
    }
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return tuple(folder / name for name in contents)


def figures(comparison: Comparison) -> Iterator[tuple[str, Any]]:
    """Yield one pair per figure: its name, which is a key of `CAPTIONS`, and a `matplotlib.figure.Figure`.

    Raises:
        ValueError: nothing has been measured yet.
    """
    arms, published, heading = comparison.arms, comparison.published, comparison.heading
    yield "figure", comparison_figure(arms, heading, comparison.table.measure, comparison.laws, published)
    # Time on other machines is not comparable, so published points are omitted.
    yield "figure_time", comparison_figure(arms, heading, "device_seconds", with_growths=False)
    yield "figure_tokens", comparison_figure(arms, heading, "tokens", published=published, with_growths=False)
    yield "costs", family_figure(comparison.families, arms, comparison.price)


def to_markdown(comparison: Comparison) -> str:
    """Return the short answer, the results, the costs and the verdicts of a comparison as Markdown."""
    return _environment().get_template("table.md").render(_values(comparison))


def to_latex(comparison: Comparison) -> str:
    """Return the results of a comparison as a LaTeX `table`, for `\\input` in a document that loads booktabs."""
    environment = _environment(**LATEX_SYNTAX)
    environment.filters["tex"] = lambda text: text.translate(LATEX)
    return environment.get_template("table.tex").render(_values(comparison))


def to_html(comparison: Comparison, arms: Sequence[Arm], command: str, configuration: str) -> str:
    """Return a comparison as a self-contained HTML page.

    Args:
        arms: compared arms. The settings and the environment of each stage are read from the stage folders.
        command: command line that reproduces the comparison, including all stages on which it depends.
        configuration: composed configuration of the experiment, as text.

    Raises:
        ValueError: nothing has been measured yet, or a file of a stage cannot be read.
    """
    values, table, records = _values(comparison), comparison.table, _records(arms)
    answer: Answer = values["answer"]
    pairs = zip(table.rows, results.result_rows(table), strict=True)
    on_stages = [[*cells, (row.rests_on, " ".join(row.keys))] for row, cells in pairs]
    columns, costs_note = _plain_text(values["meaning"]), _plain_text(results.COST_MEANING)
    elsewhere = "Measured on other machines and another validation text. Shown for reference, not for comparison."
    sections = [
        Section("answer", "Answer", header=["Size", *answer.arms], rows=_plain(answer.rows), note=answer.note),
        Section("figure", "Figure", ["figure"], note=values["caption"]),
        Section("family", "All sizes together", ["costs"], results.FAMILIES, _plain(values["family_rows"])),
        Section("results", "Results", header=[*results.RESULTS, "Depends on"], rows=on_stages, note=columns),
        Section("verdicts", "Verdicts", note=values["basis"]),
        Section("costs", "Costs", header=results.cost_header(table), rows=results.cost_rows(table), note=costs_note),
        _growths(comparison),
        _fits(comparison),
        Section("published", "Published points", [], results.PUBLISHED, _plain(values["published"]), elsewhere),
        Section("time", "Time and tokens", ["figure_time", "figure_tokens"]),
        Section("stages", "Stages"),
        _environments(records),
        Section("reproduce", "How to reproduce each number"),
    ]
    environment = _environment()
    environment.filters["to_json"] = lambda value: json.dumps(value, indent=2)
    return environment.get_template("report.html").render(
        values,
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
    table = comparison.table
    return {
        "title": comparison.title,
        "heading": comparison.heading,
        "answer": answer_of(comparison),
        "caption": " ".join(caption(comparison.arms)),
        "heldout": f" on {table.heldout_tokens:,} validation tokens" if table.heldout_tokens else "",
        "several_seeds": any(len(row.keys) > 1 for row in table.rows),
        "unit": UNITS[table.measure],
        "verdicts": verdicts(table),
        "family_verdicts": family_sentences(comparison.families, comparison.price),
        "basis": " ".join(basis(table)),
        "RESULTS": results.RESULTS,
        "results": [[text for text, _ in row] for row in results.result_rows(table)],
        "meaning": results.meaning(table),
        "cost_header": results.cost_header(table),
        "costs": [[text for text, _ in row] for row in results.cost_rows(table)],
        "COST_MEANING": results.COST_MEANING,
        "FAMILIES": results.FAMILIES,
        "family_rows": results.family_rows(comparison.families, comparison.price),
        "PUBLISHED": results.PUBLISHED,
        "published": results.published_rows(comparison.published),
    }


def _growths(comparison: Comparison) -> Section:
    header = ["Size", "Stage", "Seed", "Loss before", "Loss after", "Change", "Loss at end", "Tokens to recover"]
    rows = [
        [
            *map(_cell, (event.size, event.key, event.seed)),
            _cell(event.loss_before, ".4f"),
            _cell(event.loss_after, ".4f"),
            _cell(event.loss_after - event.loss_before, "+.4f"),
            _cell(event.loss_end, ".4f"),
            (count(event.tokens_to_recover), event.tokens_to_recover),
        ]
        for event in comparison.growths
    ]
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
                _cell(title),
                (with_interval(law.irreducible, irreducible, ".3f"), law.irreducible),
                _cell(law.coefficient, ".3f"),
                _cell(law.unit, ".3g"),
                (with_interval(law.exponent, exponent, ".3f"), law.exponent),
                _cell(len(law.frontier.compute)),
            ]
        )
    note = (
        "loss = E + A (C / unit)^-alpha, fitted to the frontier of each arm. Fits are not measurements and not used "
        "for other numbers. [low, high]: 95% of refits to resampled residuals of runs, if the form of the law is right."
    )
    return Section("fits", "Fits", header=["Arm", "E", "A", "Unit of C", "alpha", "Points"], rows=rows, note=note)


def _records(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Return one record per stage for the HTML page, with the settings and the environment of the stage. Fields that
    describe how or where the stage was run (`tfscale.stage.how`) are omitted. Settings and environment are empty before
    the stage starts."""
    stages = {stage.key: stage for arm in arms for stage in arm.all_stages}
    return [
        {
            "key": key,
            "folder": stage.path.name,
            "arms": [f"{arm.title}, {arm.label(s)}" for arm in arms for s in arm.all_stages if s.key == key],
            "parent": stage.spec.parent,
            "seed": stage.spec.seed,
            "spec": how.without(_object(stage.path / STAGE_FILE), how.STAGE),
            "environment": how.without(_object(stage.path / ENVIRONMENT_FILE), how.ENVIRONMENT),
        }
        for key, stage in stages.items()
    ]


def _object(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}


def _environments(records: Sequence[dict[str, Any]]) -> Section:
    found: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        if environment := record["environment"]:
            packages = ", ".join(f"{name} {version}" for name, version in environment.get("packages", {}).items())
            values = (*(str(environment.get(name, "")) for name in ENVIRONMENT), packages)
            found.setdefault(values, []).append(record["key"][:6])
    rows = [[*map(_cell, values), (" ".join(keys), len(keys))] for values, keys in found.items()]
    header = [*(name.capitalize() for name in ENVIRONMENT), "Packages", "Stages"]
    return Section("environment", "Environment", header=header, rows=rows)


def _cell(value: Any, form: str = "") -> results.Cell:
    """Return a table cell that shows the formatted value. The column is sorted by the value itself. The text is empty
    if the value is None."""
    return "" if value is None else f"{value:{form}}", value


def _plain(rows: Sequence[Sequence[str]]) -> list[list[results.Cell]]:
    """Convert rows of strings to rows of cells. The columns are then sorted by the strings."""
    return [list(map(_cell, row)) for row in rows]


def _plain_text(markdown: str) -> str:
    return markdown.replace("*", "").replace("`", "")
