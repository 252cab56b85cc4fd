"""Record of a finished tuning in JSON, with the trials, the chosen values and the cost."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfscale.files import write_json
from tfscale.plan.arms import training_flops
from tfscale.tune.cost import grid_flops_of, spent
from tfscale.tune.tuning import Finding, Trial, Tuning, chosen, last_loss


def write_record(tuning: Tuning, findings: Sequence[Finding], overrides: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """Write the record of a finished tuning to the runs folder, and return the path of the file and the record."""
    record = _record(tuning, findings, overrides)
    path = tuning.plan.runs / "tuning" / f"{record['schedule']}-{record['key']}.json"
    write_json(path, record)
    return path, record


def _record(tuning: Tuning, findings: Sequence[Finding], overrides: Sequence[str]) -> dict[str, Any]:
    experiment, cost = tuning.experiment, spent(findings)
    planned = training_flops(tuning.plan.stages)
    return {
        "schedule": tuning.plan.experiment.schedule.name,
        "key": tuning.key,
        "overrides": list(overrides),
        "arms": list(tuning.arms),
        **asdict(tuning.sweep),
        "first_seed": experiment.seed,
        "text": {
            "corpus": tuning.plan.corpus.fingerprint,
            "heldout_start": experiment.data.validation_start,
            "heldout_tokens": experiment.data.validation_tokens,
        },
        "rates": [_rate(tuning, finding) for finding in findings],
        "chosen": [f"{key}={value!r}" for key, value in chosen(findings).items()],
        "cost": {
            **asdict(cost),
            "of_the_plan": cost.flops / planned,
            "of_a_full_grid": cost.flops / grid_flops_of(tuning, findings),
        },
    }


def _rate(tuning: Tuning, finding: Finding) -> dict[str, Any]:
    tunable, choice = finding.tunable, finding.choice
    assert choice is not None, "only finished sweeps are recorded"
    return {
        "key": tunable.key,
        "again": finding.again,
        "before": tunable.now,
        "trains": [{"arm": arm, "size": size} for arm, size in tunable.trains],
        "trials": [_trial(tuning, trial) for trial in finding.trials],
        "chosen": choice.value if choice.loss < math.inf else None,
        "place": choice.place,
    }


def _trial(tuning: Tuning, trial: Trial) -> dict[str, Any]:
    stages = [{"key": s.key, "seed": s.spec.seed, "loss": _finite(last_loss(s))} for s in trial.stages]
    fraction = tuning.sweep.fraction(trial.rung)
    return {"value": trial.value, "of_tokens": fraction, "loss": _finite(trial.loss), "stages": stages}


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and loss < math.inf else None  # JSON has no infinity
