"""What a tuning found and what it cost, for the record."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfscale.files import write_json
from tfscale.models.counts import flops
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage
from tfscale.stage.status import is_done, read_done
from tfscale.tune.tuning import Finding, Trial, Tuning, chosen, last_loss


@dataclass(frozen=True)
class Spent:
    """What runs have cost by themselves, without what they grew out of."""

    tokens: int
    flops: int
    seconds: float
    """In training steps."""
    device_seconds: float


def write_record(tuning: Tuning, findings: Sequence[Finding], overrides: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """The record of a tuning that is finished, and the file in the runs folder that it is written to."""
    record = _record(tuning, findings, overrides)
    path = tuning.plan.runs / "tuning" / f"{record['schedule']}-{record['key']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
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
    assert choice is not None, "it is finished"
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
    """JSON has no infinity: what diverged has no loss."""
    return loss if loss is not None and loss < math.inf else None


def spent(findings: Iterable[Finding]) -> Spent:
    """What all runs of the sweeps have cost so far, those that diverged too."""
    stages = {stage.key: stage for finding in findings for trial in finding.trials for stage in trial.stages}
    costs = [_cost(stage) for stage in stages.values()]
    return Spent(
        sum(cost.tokens for cost in costs),
        sum(cost.flops for cost in costs),
        math.fsum(cost.seconds for cost in costs),
        math.fsum(cost.device_seconds for cost in costs),
    )


def _cost(stage: Stage) -> Spent:
    if is_done(stage):
        done = read_done(stage.path)
        now, before = done["totals"], done["before"]
        return Spent(**{name: now[name] - before[name] for name in ("tokens", "flops", "seconds", "device_seconds")})
    trained = [event for event in read_events(stage.path) if event["event"] == "train"]
    if not trained:
        return Spent(0, 0, 0.0, 0.0)
    last, before = trained[-1], {"seconds": 0.0, "device_seconds": 0.0}
    if stage.spec.parent_dir is not None:
        before = read_done(stage.path / stage.spec.parent_dir)["totals"]
    tokens = last["tokens"]
    return Spent(
        tokens,
        tokens * flops(stage.spec.model).training,
        last["total_seconds"] - before["seconds"],
        last["total_device_seconds"] - before["device_seconds"],
    )
