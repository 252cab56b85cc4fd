"""Comparison of arms in sentences and short numbers: verdicts, noise and intervals."""

import math
from collections.abc import Sequence

from tfscale.analysis.bootstrap import Source
from tfscale.analysis.curves import Measure
from tfscale.analysis.equal_cost import EqualCompute, EqualPerplexity
from tfscale.analysis.intervals import LEVEL, Interval
from tfscale.analysis.table import Row, Table
from tfscale.text import count, join, scientific, share

UNITS: dict[Measure, str] = {
    "flops": "FLOPs",
    "flops_with_optimizer": "FLOPs with optimizer",
    "tokens": "tokens",
    "device_seconds": "device-seconds",
}


def verdicts(table: Table) -> tuple[str, ...]:
    """Return sentences per size that state whether the chain is below or above the other arms at its cost, whether it
    saves, and whether the latter is the same with the optimizer's FLOPs included."""
    return tuple(f"{size}: {_verdict(table, table.of_size(size))}" for size in table.sizes)


def _verdict(table: Table, rows: tuple[Row, ...]) -> str:
    chain = next((row for row in rows if row.arm == table.chain), None)
    if chain is None:
        return "the chain has no model of this size."
    if chain.cumulative is None or chain.perplexity is None:
        return f"nothing to compare yet; the chain's run is {chain.status}."
    others = [row for row in rows if row is not chain]
    compared = [row for row in others if not row.shared]
    clauses = [_clause(row.title, row.equal_compute) for row in compared if row.equal_compute]
    outcomes = [f"against {row.title} {outcome(row.equal_perplexity)}" for row in compared if row.equal_perplexity]
    open_ends = [f"{row.title} ({_why_not(row)})" for row in others if row.shared or not row.equal_compute]
    sentences = []
    if clauses:
        cost = f"{amount(chain.cumulative.of(table.measure), table.measure)} {UNITS[table.measure]}"
        sentences.append(
            f"at its {cost}, base included, the chain ({chain.perplexity:.2f} perplexity) is {join(clauses)}."
        )
    if outcomes:
        text = f"{'; '.join(outcomes)}."
        sentences.append(text[0].upper() + text[1:] if clauses else text)
        if table.measure == "flops":
            sentences.append(_with_optimizer([row for row in compared if row.equal_perplexity]))
    if open_ends:
        sentences.append(f"{'Not' if sentences else 'not'} compared at equal cost with {join(open_ends)}.")
    return " ".join(sentences) or "there is no other arm."


def _with_optimizer(rows: Sequence[Row]) -> str:
    """Return a sentence that says whether the outcomes of rows are the same with the optimizer's FLOPs included."""
    unknown = [row.title for row in rows if row.with_optimizer is None]
    differing = [
        f"against {row.title} {outcome(row.with_optimizer)}, without them {outcome(row.equal_perplexity)}"
        for row in rows
        if row.with_optimizer and row.equal_perplexity and row.with_optimizer.outcome != row.equal_perplexity.outcome
    ]
    if len(unknown) == len(rows):
        return "Whether this is the same with the optimizer's FLOPs included is not known: they were not recorded."
    others = " otherwise" if differing else ""
    same = [f"the verdict is{others} the same"] if len(differing) + len(unknown) < len(rows) else []
    missing = [f"it is not known against {join(unknown)}, for they were not recorded"] if unknown else []
    return f"With the optimizer's FLOPs included, {'; '.join([*differing, *same, *missing])}."


def _clause(title: str, perplexities: EqualCompute) -> str:
    chain, arm = f"{perplexities.chain:.2f}", f"{perplexities.arm:.2f}"
    where = f"{title} ({arm}{', interpolated' if perplexities.interpolated else ''})"
    if chain == arm:
        return f"level with {where}"
    size = f"{abs(perplexities.difference):.2f}{_brackets(_absolute(perplexities), '.2f')}"
    return f"{'below' if perplexities.difference < 0 else 'above'} {where} by {size}"


def _absolute(perplexities: EqualCompute) -> Interval | None:
    """Return the interval of the difference, in the direction in which it is reported."""
    interval = perplexities.interval
    if interval is None or perplexities.difference >= 0:
        return interval
    return Interval(-interval.high, -interval.low)


def _why_not(row: Row) -> str:
    if row.shared:
        return "the same run"
    return "measured only at other costs" if row.status == "finished" else row.status


def outcome(value: EqualPerplexity) -> str:
    """Return a clause such as `it saves 31.0% [25.2%, 36.1%]`, `no difference within noise`, `it costs 12.0% more` or
    `its perplexity is not reached: the chain stays 0.14 above`."""
    if value.outcome == "no difference":
        return f"no difference within noise{_brackets(value.interval, '.1%')}"
    if value.outcome == "saves":
        assert value.saving is not None, "what saves was reached"
        return f"it saves {_least(value)}{value.saving:.1%}{_brackets(value.interval, '.1%')}"
    if value.outcome == "costs more":
        interval = value.interval and Interval(-value.interval.high, -value.interval.low)
        away = "" if value.chain is not None else f", and ends {value.gap:.2f} above its perplexity"
        return f"it costs {value.excess:.1%}{_brackets(interval, '.1%')} more{away}"
    return f"its perplexity is not reached: the chain stays {value.gap:.2f} above"


def basis(table: Table) -> tuple[str, ...]:
    """Return sentences that state what the intervals cover, what counts as noise, the optimizer's share, and what no
    cost includes."""
    sentences = []
    if any(row.equal_perplexity and row.equal_perplexity.interval for row in table.rows):
        over = {row.equal_perplexity.over for row in table.rows if row.equal_perplexity}
        kinds = " or ".join(sorted(" and ".join(OVER[source] for source in sources) for sources in over if sources))
        sentences.append(f"[low, high]: {LEVEL:.0%} intervals over {kinds}.")
    single = sorted({row.title for row in table.rows if len(row.seeds) == 1})
    if single and len(single) == len({row.title for row in table.rows}):
        sentences.append("One seed each: what other seeds would give is not known, and no interval includes it.")
    elif single:
        sentences.append(f"One seed: {join(single)}. What other seeds would give is not known there.")
    return (*sentences, _noise(table), *_shares(table), _tuning(table))


OVER: dict[Source, str] = {"seeds": "seeds", "documents": "validation documents"}


def _noise(table: Table) -> str:
    noise = table.noise
    if noise is None:
        return "No noise floor is declared (analysis.noise_floor), so every difference is taken as it is."
    source = "from the seeds" if noise.source == "seeds" else "assumed (analysis.noise_floor)"
    return (
        f"Noise floor, {source}: single runs that end within {noise.nats:.3f} nats "
        f"({math.expm1(noise.nats):.1%} of perplexity) of each other do not differ."
    )


def _shares(table: Table) -> tuple[str, ...]:
    """Return a sentence with each arm's smallest and largest share of the optimizer in the FLOPs of a run; none before
    a run has finished."""
    finished = [row for row in table.rows if row.marginal is not None]
    arms = [[row for row in finished if row.title == title] for title in dict.fromkeys(row.title for row in finished)]
    shares = {rows[0].title: [row.optimizer_share for row in rows if row.optimizer_share is not None] for rows in arms}
    known = [f"{title} {_span(of_arm)}" for title, of_arm in shares.items() if of_arm]
    unknown = [rows[0].title for rows in arms if any(row.optimizer_share is None for row in rows)]
    sentences = []
    if known:
        sentences.append(f"The optimizer's share of a run's FLOPs: {join(known)}.")
    if unknown:
        sentences.append(f"The optimizer's FLOPs were not recorded in all runs of {join(unknown)}.")
    return tuple(sentences)


def _span(shares: Sequence[float]) -> str:
    least, most = share(min(shares)), share(max(shares))
    return least if least == most else f"{least} to {most}"


def _tuning(table: Table) -> str:
    if table.tuning_flops is None:
        return (
            "What choosing the learning rates has cost is not stated (analysis.tuning_flops), and in none of the costs."
        )
    chain = [row.cumulative for row in table.rows if row.arm == table.chain and row.cumulative is not None]
    times = f", {table.tuning_flops / chain[-1].flops:.1f} times the chain's" if chain else ""
    took = amount(table.tuning_flops, "flops")
    return f"Choosing the learning rates took {took} FLOPs{times}, which are in none of the costs."


def speed_up(value: EqualPerplexity | None) -> str:
    """Return the speed-up as text such as `+54.6%`, `at least +12.0%`, or `not reached (0.14 above)`; empty if there is
    nothing to compare."""
    if value is None:
        return ""
    if value.speed_up is None:
        return f"not reached ({value.gap:.2f} above)"
    return f"{_least(value)}{value.speed_up:+.1%}{_brackets(value.speed_up_interval, '+.1%')}"


def saving(value: EqualPerplexity | None) -> str:
    """Return the saving as text such as `+35.3%`, `at least +10.7%`, or `not reached`; empty if there is nothing to
    compare."""
    if value is None:
        return ""
    if value.saving is None:
        return "not reached"
    return f"{_least(value)}{value.saving:+.1%}{_brackets(value.interval, '+.1%')}"


def _least(value: EqualPerplexity) -> str:
    return "at least " if value.state == "at least" else ""


def _brackets(interval: Interval | None, form: str) -> str:
    """Return the interval as ` [low, high]`; empty if there is none."""
    return f" [{interval.low:{form}}, {interval.high:{form}}]" if interval else ""


def with_interval(value: float | None, interval: Interval | None, form: str) -> str:
    """Return the value and its interval as text such as `5.353 [5.301, 5.412]`, without brackets if the interval is
    unknown; empty if there is no value."""
    return "" if value is None or math.isnan(value) else f"{value:{form}}{_brackets(interval, form)}"


def amount(value: float | None, measure: Measure) -> str:
    """Return a cost as text: FLOPs in the form 7.96e11, other measures formatted by `count`; empty if unknown."""
    return scientific(value) if measure in ("flops", "flops_with_optimizer") else count(value)
