"""Planned and actual cost of a tuning, and the cost of a full grid search for comparison."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from tfscale.models.counts import flops
from tfscale.stage.events import last_event, read_events, totals_of
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.result import read_result
from tfscale.stage.spec import StageSpec
from tfscale.totals import Totals
from tfscale.tune.tunables import Tunable, trained_by
from tfscale.tune.tuning import Finding, Tuning


def spent(findings: Iterable[Finding]) -> Totals:
    """Return the cost so far of training the stages of all trials. Unfinished and diverged stages are included. The
    ancestors from which these stages grow are not included."""
    stages = {stage.key: stage for finding in findings for trial in finding.trials for stage in trial.stages}
    return sum(map(_cost, stages.values()), Totals(joules=0.0))


def model_flops(spec: StageSpec) -> int:
    """Return the FLOPs of training a stage, without the FLOPs of optimizer updates."""
    return spec.tokens * flops(spec.model).training


def flops_with_optimizer(spec: StageSpec) -> int:
    """Return the FLOPs of training a stage, including the FLOPs of optimizer updates."""
    return model_flops(spec) + spec.steps * spec.optimizer.update_flops(spec.model)


def planned_flops(tuning: Tuning, flops_of: Callable[[StageSpec], int] = model_flops) -> float:
    """Return the planned FLOPs of a tuning, without candidates that extend a range. If optim.embedding_ratio is tuned,
    the sweeps of the learning rates are counted twice, because they are repeated when the ratio changes. `flops_of`
    returns the FLOPs of training one stage."""
    sweep, ratios = tuning.sweep, len(tuning.sweep.ratios)
    rates = sweep.trainings(len(sweep.factors)) * _rates_flops(tuning, flops_of)
    if not ratios:
        return rates
    return 2 * rates + replace(sweep, refine=False).trainings(ratios) * training_flops(tuning, tuning.ratio, flops_of)


def grid_flops(tuning: Tuning) -> float:
    """Return the planned model FLOPs of a full grid search, which trains each candidate rate with all tokens at each
    embedding ratio."""
    sweep = tuning.sweep
    return sweep.grid(sweep.factors) * max(1, len(sweep.ratios)) * _rates_flops(tuning)


def grid_flops_of(tuning: Tuning, findings: Sequence[Finding]) -> float:
    """Return the model FLOPs of a full grid search over the ranges of a finished tuning, including the values that
    extended a range."""
    ratios = max([1, *(len(finding.values) for finding in findings if finding.tunable == tuning.ratio)])
    return ratios * sum(
        tuning.sweep.grid(finding.values) * training_flops(tuning, finding.tunable)
        for finding in findings
        if finding.tunable != tuning.ratio and not finding.again
    )


def training_flops(tuning: Tuning, tunable: Tunable, flops_of: Callable[[StageSpec], int] = model_flops) -> int:
    """Return the FLOPs of training with one candidate value of a tunable setting, with all tokens and seeds. `flops_of`
    returns the FLOPs of training one stage."""
    return sum(flops_of(stage.spec) for stage in trained_by(tunable, tuning.planned).values())


def _rates_flops(tuning: Tuning, flops_of: Callable[[StageSpec], int] = model_flops) -> int:
    return sum(training_flops(tuning, tunable, flops_of) for tunable in tuning.tunables)


def _cost(stage: Stage) -> Totals:
    if is_done(stage):
        result = read_result(stage.path)
        return result.totals - result.before
    last = last_event(read_events(stage.path), "train")
    if last is None:
        return Totals(joules=0.0)
    parent = stage.spec.parent_dir
    return totals_of(last) - (read_result(stage.path / parent).totals if parent else Totals(joules=0.0))
