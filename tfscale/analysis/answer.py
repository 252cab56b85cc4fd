"""Short answer of a comparison. It consists of one sentence and a small table, which states for each size and arm
whether the chain is better than the arm, level with it, or worse."""

from dataclasses import dataclass

from tfscale.analysis.comparison import Comparison
from tfscale.analysis.equal_cost import Standing, decide_standing
from tfscale.analysis.family import EqualFamily
from tfscale.analysis.family_words import cell, family_clause
from tfscale.analysis.table import Row
from tfscale.analysis.words import UNITS, amount, with_interval
from tfscale.text import join

LINKS: dict[Standing, str] = {"worse": "worse than", "level": "level with", "better": "better than"}
ALL_SIZES = "all sizes"


@dataclass(frozen=True)
class Answer:
    """Short answer of a comparison as text. It consists of a sentence, and a table with a note."""

    sentence: str
    arms: tuple[str, ...]
    """Titles of the arms with which the chain is compared, one per column of the table."""
    rows: tuple[tuple[str, ...], ...]
    """Rows of the table. Each row contains a size, or `ALL_SIZES`, and one cell per arm."""
    note: str
    """Explanation of the table."""


def answer_of(comparison: Comparison) -> Answer:
    """Return the short answer of a comparison."""
    table = comparison.table
    arms = {row.arm: row.title for row in table.rows if row.arm != table.chain}
    rows = [
        (size, *(_cell(next((row for row in table.of_size(size) if row.arm == arm), None)) for arm in arms))
        for size in table.sizes
    ]
    together = {each.arm: each.at_chain for each in comparison.families if each.measure == table.measure}
    if together:
        rows.append((ALL_SIZES, *(cell(together[arm]) if arm in together else "" for arm in arms)))
    cells, unit = [text for row in rows for text in row], UNITS[table.measure]
    notes = [f"Chain compared with each arm, by perplexity at the chain's cumulative {unit}, including the base."]
    if any(text.startswith("~") for text in cells):
        notes.append("~: the other arm was read during training, which favours the chain.")
    if together:
        notes.append(f"{ALL_SIZES.capitalize()}: cost in {unit} of all of them, each at the chain's perplexity.")
    if any(text.startswith("open") for text in cells):
        notes.append("Open: perplexities were reached during training or not at all, and the costs do not decide.")
    return Answer(_sentence(comparison, together), tuple(arms.values()), tuple(rows), " ".join(notes))


def _cell(row: Row | None) -> str:
    if row is None or row.shared:
        return "" if row is None else "same run"
    if row.equal_compute is None:
        return "" if row.status == "finished" else row.status
    compared, found = row.equal_compute, decide_standing(row.equal_compute, row.noise)
    if found == "level":
        words = f"level, {with_interval(compared.difference, compared.interval, '+.2f')}"
    else:
        words = f"{found} by {with_interval(abs(compared.difference), compared.absolute_interval, '.2f')}"
    return f"{'~' if compared.interpolated else ''}{words}"


def _sentence(comparison: Comparison, together: dict[str, EqualFamily]) -> str:
    table = comparison.table
    sizes = [row.size for row in table.rows if row.equal_compute and not row.shared]
    if not sizes:
        return "There is nothing to compare yet."
    rows = table.of_size(table.primary[0] if table.primary and table.primary[0] in sizes else sizes[-1])
    last = [(row, row.equal_compute) for row in rows if row.equal_compute and not row.shared]
    chain = next(row for row in rows if row.arm == table.chain)
    assert chain.cumulative is not None, "a compared chain has finished"
    standings: dict[Standing, list[str]] = {"worse": [], "level": [], "better": []}
    for row, each in last:
        standings[decide_standing(each, row.noise)].append(f"{row.title} ({each.arm:.2f})")
    clauses = [f"{LINKS[found]} {join(titles)}" for found, titles in standings.items() if titles]
    seeds = max(len(row.keys) for row in rows)
    unit = UNITS[table.measure]
    sentence = (
        f"{f'Over {seeds} seeds' if seeds > 1 else 'In one seed'}, at {chain.size} and "
        f"{amount(chain.cumulative.of(table.measure), table.measure)} cumulative {unit}, the chain "
        f"({last[0][1].chain:.2f} perplexity) is {join(clauses)}"
    )
    titles = {row.arm: row.title for row in table.rows}
    families = [f"compared with {titles[arm]}, {family_clause(equal)}" for arm, equal in together.items()]
    if families:
        sentence += f"; for all sizes together, each at the chain's perplexity: {'; '.join(families)}"
    return f"{sentence}."
