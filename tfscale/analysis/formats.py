"""Formatting of a comparison of arms as JSON and CSV in full precision."""

import csv
import io
import json
import math
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from tfscale.analysis.answer import answer_of
from tfscale.analysis.caption import caption
from tfscale.analysis.comparison import Comparison
from tfscale.analysis.curves import COSTS, ArmCurve, Cost, StageCurve
from tfscale.analysis.family import EqualFamily, FamilyComparison
from tfscale.analysis.family_words import family_sentences
from tfscale.analysis.intervals import LEVEL, Interval
from tfscale.analysis.scaling_law import ScalingLaw
from tfscale.analysis.table import Row, Table
from tfscale.analysis.words import basis, verdicts
from tfscale.stage.how import without


def to_json(comparison: Comparison) -> str:
    """Return a comparison as JSON. The fields of each element of `rows` have the same names as the columns of the CSV
    file. Unknown and infinite values are null."""
    return json.dumps(to_document(comparison), indent=2, allow_nan=False) + "\n"


def to_document(comparison: Comparison) -> dict[str, Any]:
    """Return the content of a comparison's JSON file as a dictionary. Unknown and infinite values are None."""
    table = comparison.table
    document = {
        "title": comparison.title,
        "measure": table.measure,
        "heldout_tokens": table.heldout_tokens,
        "confidence": LEVEL,
        "tuning_flops": table.tuning_flops,
        "assumed_noise_floor": table.assumed_noise,
        "primary": table.primary and dict(zip(("size", "arm"), table.primary, strict=True)),
        "answer": asdict(answer_of(comparison)),
        "caption": caption(comparison.arms),
        "rows": [record(row, table) for row in table.rows],
        "verdicts": verdicts(table),
        "families": [_family(each) for each in comparison.families],
        "family_verdicts": family_sentences(comparison.families, comparison.price),
        "price": comparison.price,
        "basis": basis(table),
        "readings": [_reading(arm, run) for arm in comparison.arms for own in arm.stages for run in own.readings],
        "growths": [without(asdict(event), ["cost"]) for event in comparison.growths],
        "scaling_laws": [_law(law) for law in comparison.laws],
        "published": [_published(arm) for arm in comparison.published],
    }
    return {name: _finite(value) for name, value in document.items()}


def _reading(arm: ArmCurve, run: StageCurve) -> dict[str, Any]:
    assert run.end is not None, "only finished runs are readings"
    return {
        "arm": arm.name,
        "size": run.size,
        "seed": run.seed,
        "key": run.key,
        "flops": run.end.totals.flops,
        "loss": run.end.loss,
    }


def _family(family: FamilyComparison) -> dict[str, Any]:
    return {
        "arm": family.arm,
        "measure": family.measure,
        "over": family.over,
        "at_perplexities_of_chain": _equal_family(family.at_chain),
        "at_perplexities_of_arm": _equal_family(family.at_arm),
    }


def _equal_family(equal: EqualFamily) -> dict[str, Any]:
    costs = {name: {**asdict(cost), "bound": cost.bound} for name, cost in (("chain", equal.chain), ("arm", equal.arm))}
    bounds, interval = _ends("excess", equal.excess), _ends("excess_interval", equal.interval)
    return {**costs, **bounds, **interval, "verdict": equal.verdict}


def _law(law: ScalingLaw) -> dict[str, Any]:
    compute, (low, high) = law.frontier.compute, law.band(law.frontier.compute)
    names = ("compute", "loss", "fit", "fit_low", "fit_high")
    points = np.stack([compute, law.frontier.losses, law.loss(compute), low, high], axis=1).tolist()
    irreducible, exponent = law.intervals
    return {
        "arm": law.arm,
        "form": "loss = irreducible + coefficient * (compute / unit) ** -exponent (fitted, not measured)",
        "irreducible": law.irreducible,
        "coefficient": law.coefficient,
        "exponent": law.exponent,
        **_ends("irreducible", irreducible),
        **_ends("exponent", exponent),
        "unit": law.unit,
        "keys": law.frontier.keys,
        "frontier": [dict(zip(names, point, strict=True)) for point in points],
    }


def _published(arm: ArmCurve) -> dict[str, Any]:
    points = [
        {"size": stage.size, "tokens": e.totals.tokens, "flops": e.totals.flops, "perplexity": e.perplexity,
         "device_hours": e.totals.device_seconds / 3600, "read_from": e.read_from}
        for stage in arm.stages
        for e in stage.evaluations
    ]  # fmt: skip
    return {"arm": arm.name, "title": arm.title, "kind": arm.kind, "points": points}


def _finite(value: Any) -> Any:
    """Return a value in which all non-finite numbers, which JSON cannot represent, are replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def to_csv(table: Table) -> str:
    """Return a table as CSV, with a header line and one line per row. Unknown and infinite values are empty."""
    records = [record(row, table) for row in table.rows]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()


def record(row: Row, table: Table) -> dict[str, Any]:
    """Return a row of the table as a flat dictionary with numbers in full precision. Several keys or seeds are joined
    with spaces."""
    compute, perplexity, included = row.equal_compute, row.equal_perplexity, row.with_optimizer
    noise, best = row.noise, row.any_size
    costs = {
        f"{cost}_{unit.name}": getattr(getattr(row, cost), unit.name, None) for cost in COSTS for unit in fields(Cost)
    }
    values: dict[str, Any] = {
        "size": row.size,
        "arm": row.arm,
        "title": row.title,
        "kind": row.kind,
        "key": " ".join(row.keys),
        "chain_key": " ".join(row.chain_keys) or None,
        "rests_on": " ".join(row.rests_on),
        "seeds": " ".join(str(seed) for seed in row.seeds if seed is not None) or None,
        "status": row.status,
        "rank": table.rank(row),
        "parameters": row.parameters,
        "loss": row.loss,
        "perplexity": row.perplexity,
        **_ends("perplexity", row.perplexity_interval),
        "perplexity_over": " ".join(row.perplexity_over) or None,
        "bits_per_byte": row.bits_per_byte,
        **costs,
        "family": row.family and row.family.shown,
        "family_bound": row.family and row.family.bound,
        "equal_compute": compute and compute.compute,
        "equal_compute_perplexity": compute and compute.arm,
        "equal_compute_chain_perplexity": compute and compute.chain,
        "equal_compute_interpolated": compute and compute.interpolated,
        "chain_minus_arm": compute and compute.difference,
        **_ends("chain_minus_arm", compute.interval if compute else None),
        "equal_perplexity": perplexity and perplexity.target,
        "equal_perplexity_state": perplexity and perplexity.state,
        "equal_perplexity_arm_cost": perplexity and perplexity.arm,
        "equal_perplexity_chain_cost": perplexity and perplexity.chain,
        "equal_perplexity_gap": perplexity and perplexity.gap,
        "speed_up": perplexity and perplexity.speed_up,
        **_ends("speed_up", perplexity.speed_up_interval if perplexity else None),
        "saving": perplexity and perplexity.saving,
        **_ends("saving", perplexity.interval if perplexity else None),
        "comparison_over": " ".join(perplexity.over) or None if perplexity else None,
        "saving_bound": perplexity and perplexity.bound,
        "excess": perplexity and perplexity.excess,
        "outcome": perplexity and perplexity.outcome,
        "noise_floor": noise and noise.nats,
        "noise_floor_source": noise and noise.source,
        "optimizer_share": row.optimizer_share,
        "saving_with_optimizer": included and included.saving,
        **_ends("saving_with_optimizer", included.interval if included else None),
        "outcome_with_optimizer": included and included.outcome,
        "cost_ratio": row.cost_ratio,
        "any_size_arm": best and best.arm,
        "any_size_size": best and best.size,
        "any_size_perplexity": best and best.comparison.arm,
        "any_size_cost": best and best.comparison.compute,
        "chain_minus_any_size": best and best.comparison.difference,
        **_ends("chain_minus_any_size", best.comparison.interval if best else None),
    }
    return {name: _finite(value) for name, value in values.items()}


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {f"{name}_low": low, f"{name}_high": high}
