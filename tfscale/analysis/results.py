"""Tables of a comparison. Their headings and formatted numbers are the same in all documents."""

from collections.abc import Sequence
from typing import Any

from tfscale.analysis.curves import COSTS, ArmCurve
from tfscale.analysis.family import Bound, FamilyComparison
from tfscale.analysis.family_words import SIGNS, cell, dollars
from tfscale.analysis.family_words import cost as family_cost
from tfscale.analysis.intervals import LEVEL
from tfscale.analysis.table import Row, Table
from tfscale.analysis.words import UNITS, amount, saving, speed_up, with_interval
from tfscale.text import count

Cell = tuple[str, Any]
"""Text of a table cell, and the value by which the column of the cell is sorted."""
RESULTS = [
    *("Size", "Arm", "Parameters", "Tokens", "Perplexity"),
    *("Bits per byte", "Chain minus arm", "Speed-up", "Saving"),
]
COST_MEANING = (
    "*Cumulative*: including the base. *Marginal*: this run only, without its parent. *Family*: all sizes of the arm "
    "up to this one, each at the chain's perplexity; `<=`: at least one was reached during training, where a run "
    "planned for it would have cost less; `>=`: at least one was not reached, and those reached during training do "
    "not count. *FLOPs*: model FLOPs. *FLOPs with optimizer*: model FLOPs and FLOPs of optimizer updates."
)


def meaning(table: Table) -> str:
    """Return the explanation of the columns in the table of results."""
    unit = UNITS[table.measure]
    return (
        "*Tokens*: training tokens of this run, without its parents. *Chain minus arm*: difference in perplexity at "
        f"the cumulative {unit} of the chain's model of this size; negative values favour the chain; `~`: interpolated "
        "between two evaluations, before the decay of the arm's learning rate, which favours the chain. *Speed-up* "
        f"(arm's cost / chain's cost - 1) and *saving* (1 - chain's cost / arm's cost): cumulative {unit} "
        "to reach the arm's final perplexity; `at least`: the chain reached it during training, before the decay of "
        f"its learning rate, or before its stage; ({LEVEL:.0%}: bound): the same with {LEVEL:.0%} confidence; "
        "`not reached`: the chain ended above it. If an arm has branches at several budgets, the perplexity is that of "
        "the last, or the chain's best one if the chain did not reach it; `at most`: the arm reached it in training."
    )


def result_rows(table: Table) -> list[list[Cell]]:
    """Return the rows of the table of results, whose header is `RESULTS`."""
    return [_result_cells(row, table) for row in table.rows]


def _result_cells(row: Row, table: Table) -> list[Cell]:
    compute, reached = (None, None) if row.shared else (row.equal_compute, row.equal_perplexity)
    perplexity = with_interval(row.perplexity, row.perplexity_interval, ".3f")
    tokens, difference = row.marginal.tokens if row.marginal else None, ""
    if compute:
        difference = with_interval(compute.difference, compute.interval, "+.3f")
        difference = f"~{difference}" if compute.interpolated else difference
    return [
        (row.size, row.parameters),
        (f"{row.title} (primary)" if table.rank(row) == "primary" else row.title, row.title),
        (count(row.parameters), row.parameters),
        (count(tokens), tokens),
        (perplexity or row.status, row.perplexity),
        (with_interval(row.bits_per_byte, None, ".3f"), row.bits_per_byte),
        ("same run" if row.shared else difference, compute and compute.difference),
        (speed_up(reached), reached and reached.speed_up),
        (saving(reached), reached and reached.saving),
    ]


def cost_header(table: Table) -> list[str]:
    own = [f"{cost.capitalize()} {unit}" for unit in UNITS.values() for cost in COSTS]
    return ["Size", "Arm", *own, f"Family {UNITS[table.measure]}"]


def cost_rows(table: Table) -> list[list[Cell]]:
    """Return the rows of the table of costs, whose header is `cost_header`."""
    rows: list[list[Cell]] = []
    for row in table.rows:
        costs = (row.cumulative, row.marginal)
        own = [(unit, cost.of(unit) if cost else None) for unit in UNITS for cost in costs]
        cells = [(amount(value, unit), value) for unit, value in own]
        family = family_cost(row.family, table.measure) if row.family else ""
        total = row.family and row.family.shown
        rows.append([(row.size, row.parameters), (row.title, row.title), *cells, (family, total)])
    return rows


FAMILIES = [
    *("Perplexities of", "Compared with", "Cost in", "Chain", "Other arm", "Chain is"),
    *("Reached during training", "Not reached"),
]
BOUNDS: tuple[Bound, ...] = ("at most", "at least")
"""Kinds of bounds in the order of the last two columns of the table of family costs. Each of these columns lists the
sizes whose cost is a bound of this kind."""


def family_rows(families: Sequence[FamilyComparison], price: float | None) -> list[list[str]]:
    """Return the rows of the table of family costs, whose header is `FAMILIES`. Costs in US dollars are included if
    `price`, the price of a device in US dollars per hour, is known."""
    rows = []
    for family in families:
        for side, equal in (("the chain", family.at_chain), (family.title, family.at_arm)):
            sides = (equal.chain, equal.arm)
            costs = {UNITS[family.measure]: [family_cost(value, family.measure) for value in sides]}
            if price is not None and family.measure == "device_seconds":
                costs["US dollars"] = [f"{SIGNS[value.bound]}{dollars(value, price)}" for value in sides]
            found = [" ".join(size for value in sides for size in value.sizes(bound)) for bound in BOUNDS]
            rows += [[side, family.title, unit, *values, cell(equal), *found] for unit, values in costs.items()]
    return rows


PUBLISHED = ["Size", "Arm", "Tokens", "Perplexity", "Device-hours", "Perplexity read from", "Device-hours read from"]


def published_rows(arms: Sequence[ArmCurve]) -> list[list[str]]:
    """Return the rows of the table of published points, whose header is `PUBLISHED`. Tokens and device-hours are
    cumulative."""
    rows = []
    for arm in arms:
        for stage in arm.stages:
            for point in stage.evaluations:
                read, hours = point.read_from or {}, f"{point.totals.device_seconds / 3600:,.0f}"
                numbers = [count(point.totals.tokens), f"{point.perplexity:.2f}", hours]
                sources = [read.get("perplexity", ""), read.get("device_hours", "")]
                rows.append([stage.size, arm.title, *numbers, *sources])
    return rows
