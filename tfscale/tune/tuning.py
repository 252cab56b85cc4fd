"""Tuning of a plan's learning rates and, optionally, of optim.embedding_ratio, by training with several values.

Every run is an ordinary stage, which is trained with a candidate value and, except in the last rung, with fewer tokens
than the stage in the plan. A run is evaluated on the validation tokens that follow those of the plan, and no replicate
of the plan has the same seed and data order. The values are therefore not chosen by losses that a comparison reports.
The state of a tuning is read from the stages' folders, so a stopped tuning can be resumed.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from tfscale.config.schema import MOST_SEEDS, Experiment
from tfscale.growth.operator import from_dict
from tfscale.plan.arms import Arm
from tfscale.plan.plan import Plan, Replicate, make_plan
from tfscale.plan.specs import Specs
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.result import read_result
from tfscale.stage.spec import StageSpec, steps_of
from tfscale.tune.halving import search
from tfscale.tune.sweep import Choice, Sweep, candidates
from tfscale.tune.tunables import MOST_RATIO, Tunable, ratio_of, trained_by, tunables, with_values


@dataclass(frozen=True)
class Trial:
    """A candidate value of a tunable setting in one rung, with one stage per arm, size and seed."""

    value: float
    rung: int
    stages: tuple[Stage, ...]
    ancestors: tuple[Stage, ...]
    """Stages from which the trial's stages grow, parents before children."""

    @property
    def loss(self) -> float | None:
        """Mean of the final validation losses of the trial's stages in nats per token. The loss is inf if a stage
        diverged, and None if no stage diverged but a stage is unfinished."""
        losses = [last_loss(stage) for stage in self.stages]
        if math.inf in losses:
            return math.inf
        known = [loss for loss in losses if loss is not None]
        return sum(known) / len(known) if len(known) == len(losses) else None

    @property
    def left(self) -> list[Stage]:
        """Unfinished stages on which the loss depends, parents before children."""
        return [stage for stage in (*self.ancestors, *self.stages) if not is_done(stage)]


@dataclass(frozen=True)
class Finding:
    """Result of the sweep over one setting, with the trials and the chosen value."""

    tunable: Tunable
    trials: tuple[Trial, ...]
    """Trials in ascending order of value, then of rung."""
    choice: Choice | None
    """Chosen value, or None while trials are unfinished."""
    again: bool = False
    """True for the second sweep of a learning rate, after a change of optim.embedding_ratio."""

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(sorted({trial.value for trial in self.trials}))


class Tuning:
    """Sweeps over the learning rates of some arms of a plan and, optionally, over optim.embedding_ratio."""

    def __init__(self, plan: Plan, arms: Sequence[str], sweep: Sweep) -> None:
        self.plan, self.arms, self.sweep = plan, tuple(arms), sweep
        self.experiment = _for_tuning(plan.experiment, sweep.seeds)
        """Experiment with validation tokens and seeds that the plan does not use."""
        self.planned = make_plan(self.experiment)
        self.tunables = tuple(tunables(plan, arms))
        self.ratio = ratio_of(plan, arms, self.tunables)
        self._trials: dict[tuple[object, ...], Trial] = {}

    def findings(self) -> list[Finding]:
        """Return the state of every sweep, without sweeps that depend on an unfinished sweep.

        The learning rates are swept at the current optim.embedding_ratio, then the ratio is swept at the chosen rates.
        If the ratio changes, the rates are swept again.
        """
        rates = self._rates({})
        if not self.sweep.ratios or len(chosen(rates)) < len(self.tunables):
            return rates
        ratio = self._sweep(self.ratio, self.sweep.ratios, replace(self.sweep, refine=False), chosen(rates))
        moved = {key: value for key, value in chosen([ratio]).items() if value != self.ratio.now}
        again = self._rates(moved) if moved else []
        return [*rates, ratio, *(replace(finding, again=True) for finding in again)]

    def plan_of(self, findings: Sequence[Finding]) -> Plan:
        """Return a plan in which each trial is an arm, for the display and tracking of training."""
        arms = list(self._arms(findings))
        seeds = dict.fromkeys(seed for arm in arms for seed in arm.seeds)
        replicates = tuple(
            Replicate(arms[0].of_seed(seed), tuple(arm.of_seed(seed) for arm in arms[1:])) for seed in seeds
        )
        return replace(self.plan, experiment=self.experiment, replicates=replicates)

    @property
    def key(self) -> str:
        """Hash (12 hexadecimal digits) of the sweep settings, the keys of the tunable settings, and the keys of the
        stages that are planned with the current values."""
        stages = [stage.key for stage in self.planned.stages]
        what = [stages, [tunable.key for tunable in self.tunables], asdict(self.sweep)]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]

    def _rates(self, fixed: Mapping[str, float]) -> list[Finding]:
        """Return the state of the sweeps of the learning rates. `fixed` contains values of other settings by key."""
        found: dict[str, Finding] = {}
        for tunable in self.tunables:
            before = chosen(found[key] for key in tunable.after if key in found)
            if len(before) == len(tunable.after):
                first = candidates(tunable.now, self.sweep.factors)
                found[tunable.key] = self._sweep(tunable, first, self.sweep, {**before, **fixed})
        return list(found.values())

    def _sweep(self, tunable: Tunable, first: tuple[float, ...], sweep: Sweep, before: Mapping[str, float]) -> Finding:
        trials: dict[tuple[float, int], Trial] = {}

        def loss_of(value: float, rung: int) -> float | None:
            trial = trials[value, rung] = self._trial(tunable, value, rung, before)
            return trial.loss

        choice = search(first, sweep, loss_of, MOST_RATIO if tunable == self.ratio else math.inf)
        return Finding(tunable, tuple(trials[place] for place in sorted(trials)), choice)

    def _trial(self, tunable: Tunable, value: float, rung: int, before: Mapping[str, float]) -> Trial:
        place = (tunable.key, value, rung, *sorted(before.items()))
        if place in self._trials:
            return self._trials[place]
        plan = make_plan(with_values(self.experiment, {**before, tunable.key: value}))
        trained = trained_by(tunable, plan)
        ancestors: dict[str, Stage] = {}
        for stage in trained.values():
            ancestors |= {each.key: each for each in plan.lineage(stage) if each.key not in trained}
        specs = Specs(plan.experiment, plan.corpus)
        stages = _shortened(tuple(trained.values()), self.sweep.fraction(rung), specs)
        self._trials[place] = Trial(value, rung, stages, tuple(ancestors.values()))
        return self._trials[place]

    def _arms(self, findings: Iterable[Finding]) -> Iterator[Arm]:
        """Yield an arm for each trial, such as `stage2.lr=0.0007 at 1/3`, with the stages of the trial and their
        unfinished ancestors."""
        for finding in findings:
            short = finding.tunable.key.removeprefix("schedule.").removeprefix("stages.")
            for trial in finding.trials:
                stages = tuple({stage.key: stage for stage in (*trial.left, *trial.stages)}.values())
                rung = "" if trial.rung == self.sweep.rungs - 1 else f" at {self.sweep.label(trial.rung)}"
                what = f"={trial.value:g}{rung}{' again' if finding.again else ''}"
                yield Arm(f"{short}{what}", f"{finding.tunable.key}{what}", "scratch", stages)


def _for_tuning(experiment: Experiment, seeds: int) -> Experiment:
    data = experiment.data
    return replace(
        experiment,
        schedule=replace(experiment.schedule, name=f"{experiment.schedule.name}-tuning"),
        data=replace(
            data,
            validation_start=data.validation_start + data.validation_tokens,
            shuffle_seed=data.shuffle_seed + MOST_SEEDS,
        ),
        seed=experiment.seed + MOST_SEEDS,
        seeds=seeds,
    )


def _shortened(stages: Sequence[Stage], fraction: float, specs: Specs) -> tuple[Stage, ...]:
    """Return versions of stages that are trained with a fraction of the tokens, parents before children. A child grows
    from the shorter version of its parent if the parent is among the stages.

    Warm-up and decay are shortened in proportion, so a shorter version is not the same as the beginning of the stage.
    At the beginning of a stage, the learning rate has not decayed yet, and a comparison there would favour lower rates.
    """
    if fraction == 1:
        return tuple(stages)
    shorter: dict[str, Stage] = {}
    for stage in stages:
        spec = _shorter(stage.spec, fraction)
        parent = shorter.get(spec.parent or "")
        if parent is not None and spec.growth is not None:
            spec = specs.child_of(parent, spec, from_dict(spec.growth, spec.model))
        shorter[stage.key] = specs.stage(stage.size, spec)
    return tuple(shorter.values())


def _shorter(spec: StageSpec, fraction: float) -> StageSpec:
    tokens = steps_of(round(fraction * spec.tokens), spec) * spec.batch_tokens
    share, schedule, rates = tokens / spec.tokens, spec.lr_schedule, spec.rates
    if rates is not None:
        rates = replace(
            rates,
            old_ramp_tokens=round(share * rates.old_ramp_tokens),
            frozen_tokens=round(share * rates.frozen_tokens),
            new_ramp_tokens=round(share * rates.new_ramp_tokens),
        )
    schedule = replace(schedule, warmup_tokens=round(share * schedule.warmup_tokens))
    return replace(spec, tokens=tokens, lr_schedule=schedule, rates=rates)


def chosen(findings: Iterable[Finding]) -> dict[str, float]:
    """Return the chosen values by key. Settings whose sweep is unfinished, or for which every run diverged, are left
    out. If a setting has two findings, the last one is used."""
    choices = {finding.tunable.key: finding.choice for finding in findings}
    return {key: choice.value for key, choice in choices.items() if choice is not None and choice.loss < math.inf}


def stages_left(findings: Iterable[Finding]) -> list[Stage]:
    """Return the unfinished stages, including ancestors, of trials whose losses are not known yet, parents before
    children."""
    trials = [trial for finding in findings for trial in finding.trials if trial.loss is None]
    return list({stage.key: stage for trial in trials for stage in trial.left}.values())


def diverged(stage: Stage) -> bool:
    """Return True if the training of a stage failed because of a non-finite loss or gradient."""
    match read_events(stage.path)[-2:]:
        case [{"event": "non_finite"}, {"event": "end", "reason": "failed"}]:
            return True
    return False


def last_loss(stage: Stage) -> float | None:
    """Return the final validation loss of a stage in nats per token. Return inf if training diverged, and None if the
    stage is unfinished."""
    if is_done(stage):
        loss = read_result(stage.path).evaluation.loss
        return loss if math.isfinite(loss) else math.inf
    return math.inf if diverged(stage) else None
