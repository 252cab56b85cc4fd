"""Tuning of a plan's learning rates by training runs at several rates.

Every run is an ordinary stage. It differs from a stage of the plan in three ways: its learning rate; the validation
tokens, which follow those of the plan; and its seed and data order, which no replicate of the plan uses. Thus rates are
not chosen by losses that are reported later. The state of a tuning is read from the stages' folders, so a stopped
tuning can be resumed.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tfscale.config.schema import MOST_SEEDS, Experiment
from tfscale.plan.arm_kind import arm_kind
from tfscale.plan.arms import Arm
from tfscale.plan.plan import Plan, Replicate, make_plan
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage, is_done, lineage
from tfscale.stage.result import read_result
from tfscale.tune.sweep import Choice, Sweep, beyond, candidates, choose


@dataclass(frozen=True)
class Tunable:
    """A learning rate in the configuration that can be tuned."""

    key: str
    """Name of the setting, such as schedule.stages.stage2.lr."""
    rate: float
    """Current value of the setting, or optim.lr if the setting is None."""
    trains: tuple[tuple[str, str], ...]
    """Pairs (arm, size) of the stages trained at this learning rate. The loss is averaged over these stages."""
    after: tuple[str, ...]
    """Keys of the rates that must be chosen first, because the stages of this rate grow from stages of those rates."""


@dataclass(frozen=True)
class Trial:
    """A candidate value of a learning rate, with one stage per arm, size and seed."""

    rate: float
    stages: tuple[Stage, ...]
    ancestors: tuple[Stage, ...]
    """Stages that the trial's stages grow from, parents before children."""

    @property
    def loss(self) -> float | None:
        """Mean of the last validation losses; inf if any run diverged; None while runs are unfinished."""
        losses = [last_loss(stage) for stage in self.stages]
        if math.inf in losses:
            return math.inf
        known = [loss for loss in losses if loss is not None]
        return sum(known) / len(known) if len(known) == len(losses) else None

    @property
    def left(self) -> list[Stage]:
        """Stages that must be trained before the loss is known, parents before children."""
        return [stage for stage in (*self.ancestors, *self.stages) if not is_done(stage)]


@dataclass(frozen=True)
class Finding:
    """State of the sweep over one learning rate."""

    tunable: Tunable
    trials: tuple[Trial, ...]
    """Trials in ascending order of their rates."""
    choice: Choice | None
    """Chosen rate; None while trials are unfinished."""


class Tuning:
    """Sweeps over the learning rates of some arms of a plan."""

    def __init__(self, plan: Plan, arms: Sequence[str], sweep: Sweep) -> None:
        self.plan, self.arms, self.sweep = plan, tuple(arms), sweep
        self.experiment = _apart(plan.experiment, sweep.seeds)
        """Experiment of the plan with other validation tokens and other seeds."""
        self.tunables = tuple(tunables(plan, arms))

    def findings(self) -> list[Finding]:
        """Return the state of every sweep, in the order of the tunables. Sweeps that depend on an unfinished sweep are
        omitted."""
        found: dict[str, Finding] = {}
        for tunable in self.tunables:
            before = chosen(found[key] for key in tunable.after if key in found)
            if len(before) == len(tunable.after):
                found[tunable.key] = self._sweep(tunable, before)
        return list(found.values())

    def plan_of(self, findings: Sequence[Finding]) -> Plan:
        """Return a plan whose arms are the trials, for the display and tracking of training."""
        arms = list(_arms(findings))
        seeds = dict.fromkeys(seed for arm in arms for seed in arm.seeds)
        replicates = tuple(
            Replicate(seed, arms[0].of_seed(seed), tuple(arm.of_seed(seed) for arm in arms[1:])) for seed in seeds
        )
        return replace(self.plan, experiment=self.experiment, replicates=replicates)

    @property
    def key(self) -> str:
        """Hash that identifies the tuning, computed from the tunables, the sweep, and the stages at the current
        rates."""
        stages = [stage.key for stage in make_plan(self.experiment).stages]
        what = [stages, [tunable.key for tunable in self.tunables], asdict(self.sweep)]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]

    def _sweep(self, tunable: Tunable, before: Mapping[str, float]) -> Finding:
        trials = {rate: self._trial(tunable, rate, before) for rate in candidates(tunable.rate, self.sweep.factors)}
        most = len(trials) + self.sweep.further
        while True:
            losses = {rate: loss for rate, trial in trials.items() if (loss := trial.loss) is not None}
            in_order = tuple(trials[rate] for rate in sorted(trials))
            if len(losses) < len(trials):
                return Finding(tunable, in_order, None)
            more = beyond(losses)
            if more is None or len(trials) == most:
                return Finding(tunable, in_order, choose(losses))
            trials[more] = self._trial(tunable, more, before)

    def _trial(self, tunable: Tunable, rate: float, before: Mapping[str, float]) -> Trial:
        plan = make_plan(with_rates(self.experiment, {**before, tunable.key: rate}))
        every = {stage.key: stage for stage in plan.stages}
        trained = {
            stage.key: stage for arm in plan.arms for stage in arm.stages if (arm.name, stage.size) in tunable.trains
        }
        ancestors: dict[str, Stage] = {}
        for stage in trained.values():
            descent = lineage(stage, lambda each: every.get(each.spec.parent or ""))
            ancestors |= {each.key: each for each in descent if each.key not in trained}
        return Trial(rate, tuple(trained.values()), tuple(ancestors.values()))


def tunables(plan: Plan, arms: Sequence[str]) -> Iterator[Tunable]:
    """Yield each learning rate at which stages of the given arms are trained, those of the chain first. The stages that
    use or depend on a rate are found by changing the rate."""
    own = dict(_own_rates(plan.experiment))
    one = make_plan(with_rates(replace(plan.experiment, seeds=1), own))
    affected: dict[str, set[tuple[str, str]]] = {}
    for key, rate in (*_schedule_rates(plan.experiment), *own.items()):
        other = make_plan(with_rates(one.experiment, {key: 2 * rate}))
        trains, affects = [], set()
        for arm, changed in zip(one.arms, other.arms, strict=True):
            for stage, now in zip(arm.stages, changed.stages, strict=True):
                place = (arm.name, stage.size)
                if now.key != stage.key:
                    affects.add(place)
                trained_here = stage.spec.init_from is None and now.spec.optimizer.lr != stage.spec.optimizer.lr
                if trained_here and arm.name in arms:
                    trains.append(place)
        if trains:
            after = tuple(earlier for earlier, places in affected.items() if places & set(trains))
            affected[key] = affects
            yield Tunable(key, rate, tuple(trains), after)


def _schedule_rates(experiment: Experiment) -> Iterator[tuple[str, float]]:
    """Yield the key and the current value of every learning rate that a schedule can set."""
    usual = experiment.optim.lr
    for number, (name, part) in enumerate(experiment.schedule.stages.items()):
        stage = f"schedule.stages.{name}"
        yield f"{stage}.lr", part.lr or usual
        if number:  # the first stage is always trained from scratch
            yield f"{stage}.scratch_lr", part.scratch_lr or usual
        if part.transformer is not None:
            yield f"{stage}.transformer.lr", part.transformer.lr or usual
    yield "schedule.trained_on_lr", experiment.schedule.trained_on_lr or usual


def _own_rates(experiment: Experiment) -> Iterator[tuple[str, float]]:
    """Yield the key and the value of each arm's own rate: for arms that set one, and for arms of a kind with
    `own_rate`, which would otherwise share the rates of the chain or of Transformers from scratch. The default is the
    rate of the last size."""
    last = list(experiment.schedule.stages.values())[-1]
    for name, arm in experiment.baseline.arms.items():
        if arm.lr is not None or arm_kind(arm.kind).own_rate:
            schedules = last.transformer.lr if arm.transformer_growth is not None and last.transformer else last.lr
            yield f"baseline.arms.{name}.lr", arm.lr or schedules or experiment.optim.lr


def with_rates(experiment: Experiment, rates: Mapping[str, float]) -> Experiment:
    """Return the experiment with the learning rates replaced by `rates`, by key."""
    for key, rate in rates.items():
        experiment = _with(experiment, key.split("."), rate)
    return experiment


def _with(part: Any, path: Sequence[str], value: float) -> Any:
    name, *rest = path
    if isinstance(part, dict):
        return {**part, name: _with(part[name], rest, value)}
    return replace(part, **{name: _with(getattr(part, name), rest, value) if rest else value})


def _apart(experiment: Experiment, seeds: int) -> Experiment:
    """Return the experiment with the next validation tokens, and with seeds that no replicate uses."""
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


def chosen(findings: Iterable[Finding]) -> dict[str, float]:
    """Return the chosen rates by key, without rates for which every run diverged."""
    choices = {finding.tunable.key: finding.choice for finding in findings}
    return {key: choice.rate for key, choice in choices.items() if choice is not None and choice.loss < math.inf}


def stages_left(findings: Iterable[Finding]) -> list[Stage]:
    """Return the stages that can be trained now, parents before children."""
    trials = [trial for finding in findings for trial in finding.trials if trial.loss is None]
    return list({stage.key: stage for trial in trials for stage in trial.left}.values())


def _arms(findings: Iterable[Finding]) -> Iterator[Arm]:
    """Yield each trial as an arm, such as `stage2.lr=0.0007`, with the stages to train for it."""
    for finding in findings:
        short = finding.tunable.key.removeprefix("schedule.").removeprefix("stages.")
        for trial in finding.trials:
            stages = tuple({stage.key: stage for stage in (*trial.left, *trial.stages)}.values())
            yield Arm(f"{short}={trial.rate:g}", f"{finding.tunable.key}={trial.rate:g}", "scratch", stages)


def diverged(stage: Stage) -> bool:
    """Return whether training of the stage ended with a non-finite loss or gradient."""
    match read_events(stage.path)[-2:]:
        case [{"event": "non_finite"}, {"event": "end", "reason": "failed"}]:
            return True
    return False


def last_loss(stage: Stage) -> float | None:
    """Return the last validation loss of a stage; inf if it diverged, None if it is not known yet."""
    if is_done(stage):
        loss = read_result(stage.path).evaluation.loss
        return loss if math.isfinite(loss) else math.inf
    return math.inf if diverged(stage) else None
