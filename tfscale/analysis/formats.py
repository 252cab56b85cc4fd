"""The table as files: CSV and JSON in full precision for programs, Markdown for people."""

import csv
import io
import json
import math
from dataclasses import fields
from typing import Any

from tfscale.analysis.curves import Totals
from tfscale.analysis.table import Row, Table
from tfscale.analysis.words import UNITS, amount, number, saving, speed_up, verdicts

COSTS = ("cumulative", "marginal", "family")


def to_json(table: Table) -> str:
    """Rows of the same names as the CSV's columns. What is not known is null."""
    document = {
        "measure": table.measure,
        "heldout_tokens": table.heldout_tokens,
        "rows": [record(row) for row in table.rows],
        "verdicts": verdicts(table),
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def to_csv(table: Table) -> str:
    """One line a row. What is not known is empty."""
    records = [record(row) for row in table.rows]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()


def record(row: Row) -> dict[str, str | int | float | bool | None]:
    """The row as one level of named values, in full precision, the keys of its stages among them."""
    compute, perplexity = row.equal_compute, row.equal_perplexity
    costs = {
        f"{cost}_{unit.name}": getattr(getattr(row, cost), unit.name, None) for cost in COSTS for unit in fields(Totals)
    }
    values: dict[str, Any] = {
        "size": row.size,
        "arm": row.arm,
        "title": row.title,
        "kind": row.kind,
        "key": row.key,
        "chain_key": row.chain_key,
        "status": row.status,
        "parameters": row.parameters,
        "loss": row.loss,
        "perplexity": row.perplexity,
        "bits_per_byte": row.bits_per_byte,
        **costs,
        "equal_compute": compute and compute.compute,
        "equal_compute_perplexity": compute and compute.arm,
        "equal_compute_chain_perplexity": compute and compute.chain,
        "equal_compute_interpolated": compute and compute.interpolated,
        "chain_minus_arm": compute and compute.difference,
        "equal_perplexity": perplexity and perplexity.target,
        "equal_perplexity_state": perplexity and perplexity.state,
        "equal_perplexity_arm_cost": perplexity and perplexity.arm,
        "equal_perplexity_chain_cost": perplexity and perplexity.chain,
        "equal_perplexity_gap": perplexity and perplexity.gap,
        "speed_up": perplexity and perplexity.speed_up,
        "saving": perplexity and perplexity.saving,
        "cost_ratio": row.cost_ratio,
    }
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def to_markdown(table: Table, title: str) -> str:
    """The comparison, the costs and the verdicts, for people."""
    unit = UNITS[table.measure]
    heldout = f" on {table.heldout_tokens:,} held-out tokens" if table.heldout_tokens else ""
    results = _markdown(
        ["Size", "Arm", "Parameters", "Tokens", "Perplexity", "Bits a byte", "Chain minus arm", "Speed-up", "Saving"],
        [_result_cells(row) for row in table.rows],
    )
    costs = _markdown(
        ["Size", "Arm", *(f"{cost.capitalize()} {unit}" for unit in UNITS.values() for cost in COSTS)],
        [_cost_cells(row) for row in table.rows],
    )
    return "\n".join(
        [
            f"# {title}",
            "",
            f"Perplexity{heldout}. Each row is one run.",
            "",
            *(f"- {verdict}" for verdict in verdicts(table)),
            "",
            results,
            "",
            "*Tokens*: read in this run, its parents' left out. *Chain minus arm*: perplexity where the arm has taken "
            f"the {unit} that the chain took for its model of that size, base included; below 0 the chain is better; "
            "`~` interpolated between two evaluations, before the arm's learning rate had come down, which flatters "
            "the chain. *Speed-up* (arm's cost / chain's - 1) and *saving* (1 - chain's "
            f"/ arm's): cumulative {unit} to the perplexity with which the arm ended; `at least`: the chain's stage "
            "began below it; `not reached`: the chain ended above it.",
            "",
            "## Costs",
            "",
            costs,
            "",
            "*Cumulative*: base included. *Marginal*: this run alone, its parent a gift. *Family*: all of the arm's "
            "runs up to this size. FLOPs are model FLOPs.",
            "",
        ]
    )


def _result_cells(row: Row) -> list[str]:
    end = [row.status, ""] if row.perplexity is None else [f"{row.perplexity:.3f}", _fixed(row.bits_per_byte)]
    return [
        row.size,
        row.title,
        number(row.parameters),
        number(row.marginal.tokens if row.marginal else None),
        *end,
        *(["same run", "", ""] if row.shared else _comparison_cells(row)),
    ]


def _comparison_cells(row: Row) -> list[str]:
    return [_difference(row), speed_up(row.equal_perplexity), saving(row.equal_perplexity)]


def _difference(row: Row) -> str:
    if row.equal_compute is None:
        return ""
    return f"{'~' if row.equal_compute.interpolated else ''}{row.equal_compute.difference:+.3f}"


def _cost_cells(row: Row) -> list[str]:
    costs: list[Totals | None] = [getattr(row, cost) for cost in COSTS]
    return [row.size, row.title, *(amount(cost.of(unit) if cost else None, unit) for unit in UNITS for cost in costs)]


def _fixed(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3f}"


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    rule = ["---", "---", *("---:" for _ in header[2:])]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *escaped])
