"""The comparison in words and in short numbers: what the table's readers read first."""

import math

from tfscale.analysis.costs import EqualCompute, EqualPerplexity
from tfscale.analysis.curves import Measure
from tfscale.analysis.table import Row, Table

UNITS: dict[Measure, str] = {"flops": "FLOPs", "tokens": "tokens", "device_seconds": "device-seconds"}


def verdicts(table: Table) -> tuple[str, ...]:
    """One sentence or two for each size: whether the chain is below or above the other arms, and by how much."""
    return tuple(f"{size}: {_verdict(table, table.of_size(size))}" for size in table.sizes)


def _verdict(table: Table, rows: tuple[Row, ...]) -> str:
    chain = next((row for row in rows if row.arm == table.chain), None)
    if chain is None:
        return "the chain has no model of this size."
    if chain.cumulative is None or chain.perplexity is None:
        return f"nothing to compare yet; the chain's run is {chain.status}."
    others = [row for row in rows if row is not chain]
    clauses = [_clause(row.title, row.equal_compute) for row in others if row.equal_compute and not row.shared]
    open_ends = [f"{row.title} ({_why_not(row)})" for row in others if not row.equal_compute or row.shared]
    sentences = []
    if clauses:
        cost = f"{amount(chain.cumulative.of(table.measure), table.measure)} {UNITS[table.measure]}"
        sentences.append(
            f"at its {cost}, base included, the chain ({chain.perplexity:.2f} perplexity) is {join(clauses)}."
        )
    if open_ends:
        sentences.append(f"{'Not' if clauses else 'not'} compared with {join(open_ends)}.")
    return " ".join(sentences) or "there is no other arm."


def _clause(title: str, perplexities: EqualCompute) -> str:
    chain, arm = f"{perplexities.chain:.2f}", f"{perplexities.arm:.2f}"
    where = f"{title} ({arm}{', interpolated' if perplexities.interpolated else ''})"
    if chain == arm:
        return f"level with {where}"
    return f"{'below' if perplexities.difference < 0 else 'above'} {where} by {abs(perplexities.difference):.2f}"


def _why_not(row: Row) -> str:
    if row.shared:
        return "the same run"
    return "measured only at other costs" if row.status == "finished" else row.status


def speed_up(value: EqualPerplexity | None) -> str:
    """Such as `+54.6%`, `at least +12.0%`, or `not reached (0.14 above)`. Empty if there is nothing to compare."""
    if value is None:
        return ""
    return f"not reached ({value.gap:.2f} above)" if value.speed_up is None else _gain(value, value.speed_up)


def saving(value: EqualPerplexity | None) -> str:
    """Such as `+35.3%`, `at least +10.7%`, or `not reached`. Empty if there is nothing to compare."""
    if value is None:
        return ""
    return "not reached" if value.saving is None else _gain(value, value.saving)


def _gain(value: EqualPerplexity, gain: float) -> str:
    return f"{'at least ' if value.state == 'at least' else ''}{gain:+.1%}"


def number(value: float | None) -> str:
    """Three digits: 850, 12.3k, 124M, 1.31B, and 2.10e12 above that. Empty if there is none."""
    if value is None or math.isnan(value):
        return ""
    if abs(value) < 999.5:
        return f"{value:.3g}"
    for divisor, suffix in ((1e3, "k"), (1e6, "M"), (1e9, "B")):
        if abs(value) < 999.5 * divisor:
            return f"{value / divisor:#.3g}".rstrip(".") + suffix
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def amount(value: float | None, measure: Measure) -> str:
    """A cost in the way its measure is read: FLOPs as 7.96e11, the others as `number` does."""
    if value is None or measure != "flops":
        return number(value)
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def join(items: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
