"""Record of a learning-rate tuning, with the trials, the chosen rates and the cost."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfscale.files import write_json
from tfscale.models.counts import flops
from tfscale.stage.events import last_event, read_events, totals_of
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.result import read_result
from tfscale.totals import Totals
from tfscale.tune.tuning import Finding, Trial, Tuning, chosen, last_loss


def write_record(tuning: Tuning, findings: Sequence[Finding], overrides: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """Write the record of a finished tuning into the runs folder; return the file and the record."""
    record = _record(tuning, findings, overrides)
    path = tuning.plan.runs / "tuning" / f"{record['schedule']}-{record['key']}.json"
    write_json(path, record)
    return path, record


def _record(tuning: Tuning, findings: Sequence[Finding], overrides: Sequence[str]) -> dict[str, Any]:
    experiment, cost = tuning.experiment, spent(findings)
    planned = sum(stage.spec.tokens * flops(stage.spec.model).training for stage in tuning.plan.stages)
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
        "rates": [_rate(finding) for finding in findings],
        "chosen": [f"{key}={rate!r}" for key, rate in chosen(findings).items()],
        "cost": {**asdict(cost), "of_the_plan": cost.flops / planned},
    }


def _rate(finding: Finding) -> dict[str, Any]:
    tunable, choice = finding.tunable, finding.choice
    assert choice is not None, "only finished sweeps are recorded"
    return {
        "key": tunable.key,
        "before": tunable.rate,
        "trains": [{"arm": arm, "size": size} for arm, size in tunable.trains],
        "trials": [_trial(trial) for trial in finding.trials],
        "chosen": choice.rate if choice.loss < math.inf else None,
        "place": choice.place,
    }


def _trial(trial: Trial) -> dict[str, Any]:
    stages = [{"key": s.key, "seed": s.spec.seed, "loss": _finite(last_loss(s))} for s in trial.stages]
    return {"lr": trial.rate, "loss": _finite(trial.loss), "stages": stages}


def _finite(loss: float | None) -> float | None:
    """Return the loss, or None if the run diverged, because JSON has no infinity."""
    return loss if loss is not None and loss < math.inf else None


def spent(findings: Iterable[Finding]) -> Totals:
    """Return the cost so far of all runs of the sweeps, including diverged runs and excluding parent stages."""
    stages = {stage.key: stage for finding in findings for trial in finding.trials for stage in trial.stages}
    return sum(map(_cost, stages.values()), Totals(joules=0.0))


def _cost(stage: Stage) -> Totals:
    if is_done(stage):
        result = read_result(stage.path)
        return result.totals - result.before
    last = last_event(read_events(stage.path), "train")
    if last is None:
        return Totals(joules=0.0)
    parent = stage.spec.parent_dir
    return totals_of(last) - (read_result(stage.path / parent).totals if parent else Totals(joules=0.0))
