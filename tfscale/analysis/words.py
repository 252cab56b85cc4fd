"""Text of a comparison: verdicts as sentences, explanations of noise, and formatted numbers with intervals."""

import math
from collections.abc import Sequence

from tfscale.analysis.bootstrap import Source
from tfscale.analysis.curves import Measure
from tfscale.analysis.equal_cost import BestOfAnySize, EqualCompute, EqualPerplexity
from tfscale.analysis.intervals import LEVEL, Bound, Interval
from tfscale.analysis.table import Row, Table
from tfscale.text import count, join, scientific, share

UNITS: dict[Measure, str] = {
    "flops": "FLOPs",
    "flops_with_optimizer": "FLOPs with optimizer",
    "tokens": "tokens",
    "device_seconds": "device-seconds",
}


def verdicts(table: Table) -> tuple[str, ...]:
    """Return one text per size. Each text states whether the chain's perplexity is below or above the perplexities of
    the other arms at equal cost, whether the chain saves compute, and whether including the optimizer's FLOPs changes
    this verdict."""
    return tuple(f"{size}{_rank(table, size)}: {_size_sentence(table, table.of_size(size))}" for size in table.sizes)


def _rank(table: Table, size: str) -> str:
    if table.primary is None:
        return ""
    ranks = {table.rank(row): row.title for row in table.of_size(size)}
    return f" (primary: {ranks['primary']})" if "primary" in ranks else " (secondary)" if "secondary" in ranks else ""


def _size_sentence(table: Table, rows: tuple[Row, ...]) -> str:
    chain = next((row for row in rows if row.arm == table.chain), None)
    if chain is None:
        return "the chain has no model of this size."
    if chain.cumulative is None or chain.perplexity is None:
        return f"nothing to compare yet; the chain's run is {chain.status}."
    others = [row for row in rows if row is not chain]
    compared = [row for row in others if not row.shared]
    clauses = [_clause(row.title, row.equal_compute) for row in compared if row.equal_compute]
    outcomes = [
        f"compared with {row.title}, {cost_clause(row.equal_perplexity)}" for row in compared if row.equal_perplexity
    ]
    open_ends = []
    for row in others:
        if row.shared or not row.equal_compute:
            elsewhere = "measured only at other costs" if row.status == "finished" else row.status
            open_ends.append(f"{row.title} ({'the same run' if row.shared else elsewhere})")
    sentences = []
    if clauses:
        cost = f"{amount(chain.cumulative.of(table.measure), table.measure)} cumulative {UNITS[table.measure]}"
        sentences.append(f"at {cost}, the chain ({chain.perplexity:.2f} perplexity) is {join(clauses)}.")
    if chain.any_size and chain.any_size.size != chain.size:
        sentences.append(_best_of_any_size(table, chain.any_size))
    if outcomes:
        text = f"{'; '.join(outcomes)}."
        sentences.append(text[0].upper() + text[1:] if sentences else text)
        if table.measure == "flops":
            sentences.append(_with_optimizer([row for row in compared if row.equal_perplexity]))
    if open_ends:
        sentences.append(f"{'Not' if sentences else 'not'} compared at equal cost with {join(open_ends)}.")
    return " ".join(sentences) or "there is no other arm."


def _best_of_any_size(table: Table, best: BestOfAnySize) -> str:
    title = next(row.title for row in table.of_size(best.size) if row.arm == best.arm)
    cost = f"{amount(best.comparison.compute, table.measure)} {UNITS[table.measure]}"
    than = _clause(f"{title} of {best.size}", best.comparison)
    return f"The best model from scratch at this compute has another size: the chain is {than}, which took {cost}."


def _with_optimizer(rows: Sequence[Row]) -> str:
    """Return a sentence that states which outcomes of the comparisons in `rows` change if the optimizer's FLOPs are
    included."""
    unknown = [row.title for row in rows if row.with_optimizer is None]
    differing = [
        f"{cost_clause(row.with_optimizer)} compared with {row.title} "
        f"(without them, {cost_clause(row.equal_perplexity)})"
        for row in rows
        if row.with_optimizer and row.equal_perplexity and row.with_optimizer.outcome != row.equal_perplexity.outcome
    ]
    if len(unknown) == len(rows):
        return "The verdict with the optimizer's FLOPs included is unknown because they were not recorded."
    missing = [f"the verdict for {join(unknown)} is unknown because they were not recorded"]
    clauses = differing + (missing if unknown else [])
    if len(differing) + len(unknown) < len(rows):
        clauses.append("otherwise, the verdict is the same" if clauses else "the verdict is the same")
    return f"With the optimizer's FLOPs included, {'; '.join(clauses)}."


def _clause(title: str, perplexities: EqualCompute) -> str:
    chain, arm = f"{perplexities.chain:.2f}", f"{perplexities.arm:.2f}"
    where = f"{title} ({arm}{', interpolated' if perplexities.interpolated else ''})"
    if chain == arm:
        return f"equal to {where}"
    size = with_interval(abs(perplexities.difference), perplexities.absolute_interval, ".2f")
    return f"{'below' if perplexities.difference < 0 else 'above'} {where} by {size}"


def cost_clause(value: EqualPerplexity) -> str:
    """Return a clause such as `it saves 31.0% [25.2%, 36.1%]`, `it costs at least 12.0% more (with 95% confidence at
    least 8.1%)`, `there is no difference within noise` or `it does not reach the final perplexity and ends 0.14 above
    it`."""
    if value.outcome == "no difference":
        return _no_difference(value)
    if value.outcome == "saves":
        assert value.saving is not None, "the outcome `saves` requires that the target was reached"
        return f"it saves {_bound(value.bound)}{value.saving:.1%}{_confidence(value, value.interval, value.bound)}"
    if value.outcome == "costs more":
        interval = value.interval and -value.interval
        away = "" if value.chain is not None else f" and ends {value.gap:.2f} above the final perplexity"
        bound = _OPPOSITE[value.bound] if value.bound else None
        return f"it costs {_bound(bound)}{value.excess:.1%} more{_confidence(value, interval, bound)}{away}"
    return f"it does not reach the final perplexity and ends {value.gap:.2f} above it"


def _no_difference(value: EqualPerplexity) -> str:
    interval = _brackets(value.interval, ".1%")
    if value.interval is None or 0 in value.interval:
        return f"there is no difference within noise{interval}"
    if value.noise is None:
        return f"whether it reaches the final perplexity is within noise (saving at equal perplexity{interval})"
    over = join([OVER[source] for source in value.over])
    return f"there is no difference within the noise floor of {value.noise.nats:.3f} nats (over {over} alone{interval})"


_OPPOSITE: dict[Bound, Bound] = {"at least": "at most", "at most": "at least"}


def _bound(bound: Bound | None) -> str:
    return f"{bound} " if bound else ""


def _confidence(value: EqualPerplexity, interval: Interval | None, bound: Bound | None) -> str:
    """Return the confidence interval of a saving or an excess cost as text such as ` [25.2%, 36.1%]`, or ` (with 95%
    confidence at least 8.1%)` if the saving or excess is a bound. Return an empty string if the interval is unknown."""
    end = _known_end(interval)
    if bound is None or end is None:
        return _brackets(interval, ".1%")
    alone = "" if "seeds" in value.over else f" over {join([OVER[source] for source in value.over])} alone"
    return f" (with {LEVEL:.0%} confidence{alone} {bound} {end:.1%})"


def _known_end(interval: Interval | None) -> float | None:
    """Return the lower end of an interval if it is finite, otherwise the upper end, or None if neither is finite."""
    ends = (interval.low, interval.high) if interval else ()
    return next((end for end in ends if math.isfinite(end)), None)


def basis(table: Table) -> tuple[str, ...]:
    """Return sentences about the primary comparison, the intervals, the noise floor, the optimizer's share of FLOPs and
    the cost of tuning."""
    sentences = []
    if any(row.equal_perplexity and row.equal_perplexity.interval for row in table.rows):
        over = {row.equal_perplexity.over for row in table.rows if row.equal_perplexity}
        kinds = " or ".join(sorted(" and ".join(OVER[source] for source in sources) for sources in over if sources))
        sentences.append(f"[low, high]: {LEVEL:.0%} intervals over {kinds}.")
    single = sorted({row.title for row in table.rows if len(row.seeds) == 1})
    if single and len(single) == len({row.title for row in table.rows}):
        sentences.append("One seed each: the variation over seeds is unknown, and no interval includes it.")
    elif single:
        sentences.append(f"One seed: {join(single)}. The variation over seeds is unknown for these arms.")
    return (*_primary(table), *sentences, *_noise(table), *_shares(table), _tuning(table))


def _primary(table: Table) -> tuple[str, ...]:
    if table.primary is None:
        return ()
    ranks = [table.rank(row) for row in table.rows]
    size, name = table.primary
    if "primary" not in ranks:
        return (
            f"The primary comparison (analysis.primary: {name} at {size}) is not among these, which are secondary.",
        )
    title = next(row.title for row in table.of_size(size) if row.arm == name)
    secondary = ranks.count("secondary")
    if not secondary:
        return (f"Primary comparison: {title} at {size}.",)
    return (
        f"Primary comparison: {title} at {size}. The other {secondary} are secondary: each has a confidence of "
        f"{LEVEL:.0%} on its own, so one in {1 / (1 - LEVEL):.0f} is expected to be wrong by chance.",
    )


OVER: dict[Source, str] = {"seeds": "seeds", "documents": "validation documents"}


def _noise(table: Table) -> tuple[str, ...]:
    compared = [(row, row.equal_perplexity) for row in table.rows if row.equal_perplexity]
    single = [(row, value.noise) for row, value in compared if "seeds" not in value.over]
    assumed = {noise.nats for _, noise in single if noise and noise.source == "assumed"}
    measured = [f"{row.title} at {row.size} ({noise.nats:.3f} nats)"
                for row, noise in single if noise and noise.source == "seeds"]  # fmt: skip
    sentences = [
        f"Noise floor, assumed (analysis.noise_floor): single runs count as equal if their final losses differ by at "
        f"most {nats:.3f} nats ({math.expm1(nats):.1%} of perplexity)."
        for nats in assumed
    ]
    if measured:
        sentences.append(f"Noise floor, measured over the seeds of the other side: {join(measured)}.")
    if any(noise is None for _, noise in single):
        sentences.append("No noise floor is set (analysis.noise_floor), so no difference of single runs is noise.")
    return tuple(sentences)


def _shares(table: Table) -> tuple[str, ...]:
    """Return sentences that state the optimizer's share of a run's FLOPs for each arm, and the arms for which it is
    unknown."""
    known, unknown, sentences = [], [], []
    for title in dict.fromkeys(row.title for row in table.rows if row.marginal):
        shares = [row.optimizer_share for row in table.rows if row.title == title and row.marginal]
        if recorded := [each for each in shares if each is not None]:
            least, most = share(min(recorded)), share(max(recorded))
            known.append(f"{title} {least if least == most else f'{least} to {most}'}")
        if None in shares:
            unknown.append(title)
    if known:
        sentences.append(f"The optimizer's share of a run's FLOPs: {join(known)}.")
    if unknown:
        sentences.append(f"The optimizer's FLOPs were not recorded for at least one run of {join(unknown)}.")
    return tuple(sentences)


def _tuning(table: Table) -> str:
    if table.tuning_flops is None:
        return (
            "The cost of tuning the learning rates is not stated (analysis.tuning_flops) and not included in any cost."
        )
    chain = [row.cumulative for row in table.rows if row.arm == table.chain and row.cumulative is not None]
    times = f" ({table.tuning_flops / chain[-1].flops:.1f} times the chain's cost)" if chain else ""
    took = amount(table.tuning_flops, "flops")
    return f"Tuning the learning rates took {took} FLOPs{times}, which are not included in any cost."


def speed_up(value: EqualPerplexity | None) -> str:
    """Return the speed-up as text such as `+54.6%`, `at least +12.0%` or `not reached (0.14 above)`, or an empty string
    if `value` is None."""
    if value is None:
        return ""
    if value.speed_up is None:
        return f"not reached ({value.gap:.2f} above)"
    return _reading(value, value.speed_up, value.speed_up_interval)


def saving(value: EqualPerplexity | None) -> str:
    """Return the saving as text such as `+35.3%`, `at least +10.7%` or `not reached`, or an empty string if `value` is
    None."""
    if value is None:
        return ""
    if value.saving is None:
        return "not reached"
    return _reading(value, value.saving, value.interval)


def _reading(value: EqualPerplexity, read: float, interval: Interval | None) -> str:
    end = _known_end(interval)
    if value.outcome == "no difference" or value.bound is None:
        confidence = _brackets(interval, "+.1%")
    else:
        confidence = "" if end is None else f" ({LEVEL:.0%}: {end:+.1%})"
    return f"{_bound(value.bound)}{read:+.1%}{confidence}"


def _brackets(interval: Interval | None, form: str) -> str:
    """Return an interval as text, ` [low, high]`, in which an infinite end is written as `unknown`. Return an empty
    string if neither end is known."""
    if interval is None or _known_end(interval) is None:
        return ""
    low, high = (f"{end:{form}}" if math.isfinite(end) else "unknown" for end in (interval.low, interval.high))
    return f" [{low}, {high}]"


def with_interval(value: float | None, interval: Interval | None, form: str) -> str:
    """Return a value and its interval as text such as `5.353 [5.301, 5.412]`, or an empty string if the value is None
    or NaN."""
    return "" if value is None or math.isnan(value) else f"{value:{form}}{_brackets(interval, form)}"


def amount(value: float | None, measure: Measure) -> str:
    """Return a cost as text, or an empty string if the cost is unknown."""
    return scientific(value) if measure in ("flops", "flops_with_optimizer") else count(value)
