"""Tables of a comparison as text: headings and rows of short numbers, the same in every file."""

from collections.abc import Sequence

from tfscale.analysis.costs import COSTS
from tfscale.analysis.curves import ArmCurve, Cost, Evaluation, StageCurve
from tfscale.analysis.table import Row, Table
from tfscale.analysis.words import UNITS, amount, saving, speed_up, with_interval
from tfscale.text import count

RESULTS = [
    *("Size", "Arm", "Parameters", "Tokens", "Perplexity"),
    *("Bits per byte", "Chain minus arm", "Speed-up", "Saving"),
]
COST_MEANING = (
    "*Cumulative*: base included. *Marginal*: this run alone, its parent a gift. *Family*: all of the arm's runs up to "
    "this size. FLOPs are model FLOPs; *with optimizer*: and those of the optimizer's updates."
)


def meaning(table: Table) -> str:
    """Return the explanation of the result columns."""
    unit = UNITS[table.measure]
    return (
        "*Tokens*: read in this run, its parents' left out. *Chain minus arm*: perplexity where the arm has taken "
        f"the {unit} that the chain took for its model of that size, base included; below 0 the chain is better; "
        "`~` interpolated between two evaluations, before the arm's learning rate had come down, which flatters "
        "the chain. *Speed-up* (arm's cost / chain's - 1) and *saving* (1 - chain's "
        f"/ arm's): cumulative {unit} to the perplexity with which the arm ended; `at least`: the chain's stage "
        "began below it; `not reached`: the chain ended above it."
    )


def results(table: Table) -> list[list[str]]:
    """Return the rows of the table of results; `RESULTS` is its header."""
    return [_result_cells(row) for row in table.rows]


def costs(table: Table) -> list[list[str]]:
    """Return the rows of the table of costs; `cost_header` returns its header."""
    return [_cost_cells(row) for row in table.rows]


def cost_header() -> list[str]:
    return ["Size", "Arm", *(f"{cost.capitalize()} {unit}" for unit in UNITS.values() for cost in COSTS)]


PUBLISHED = ["Size", "Arm", "Tokens", "Perplexity", "Device-hours", "Perplexity read from", "Device-hours read from"]


def published_rows(arms: Sequence[ArmCurve]) -> list[list[str]]:
    """Return rows of size, arm, cumulative tokens, perplexity, cumulative device-hours, and the source of the last
    two."""
    return [_published_cells(arm, stage, e) for arm in arms for stage in arm.stages for e in stage.evaluations]


def _published_cells(arm: ArmCurve, stage: StageCurve, point: Evaluation) -> list[str]:
    read = point.read_from or {}
    hours = f"{point.totals.device_seconds / 3600:,.0f}"
    numbers = [count(point.totals.tokens), f"{point.perplexity:.2f}", hours]
    return [stage.size, arm.title, *numbers, read.get("perplexity", ""), read.get("device_hours", "")]


def _result_cells(row: Row) -> list[str]:
    perplexity = with_interval(row.perplexity, row.perplexity_interval, ".3f")
    return [
        row.size,
        row.title,
        count(row.parameters),
        count(row.marginal.tokens if row.marginal else None),
        perplexity or row.status,
        with_interval(row.bits_per_byte, None, ".3f"),
        *(["same run", "", ""] if row.shared else _comparison_cells(row)),
    ]


def _comparison_cells(row: Row) -> list[str]:
    return [_difference(row), speed_up(row.equal_perplexity), saving(row.equal_perplexity)]


def _difference(row: Row) -> str:
    compute = row.equal_compute
    if compute is None:
        return ""
    return f"{'~' if compute.interpolated else ''}{with_interval(compute.difference, compute.interval, '+.3f')}"


def _cost_cells(row: Row) -> list[str]:
    costs: list[Cost | None] = [getattr(row, cost) for cost in COSTS]
    return [row.size, row.title, *(amount(cost.of(unit) if cost else None, unit) for unit in UNITS for cost in costs)]
