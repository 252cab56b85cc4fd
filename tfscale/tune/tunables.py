"""Settings that can be tuned: the learning rates of a plan and `optim.embedding_ratio`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tfscale.config.schema import Experiment
from tfscale.plan.arm_kind import arm_kind
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.folder import Stage

RATIO = "optim.embedding_ratio"
MOST_RATIO = 1000.0
"""Maximum value of `optim.embedding_ratio` in a sweep."""


@dataclass(frozen=True)
class Tunable:
    """Learning rate or optim.embedding_ratio that can be tuned, with the stages for which it is tuned."""

    key: str
    """Key of the setting, such as schedule.stages.stage2.lr."""
    now: float
    """Current value of the setting or, if the setting is None, the value that applies instead."""
    trains: tuple[tuple[str, str], ...]
    """Pairs (arm, size) of the stages that are trained with this setting. The loss is averaged over these stages."""
    after: tuple[str, ...]
    """Keys of the learning rates that must be chosen first, because they affect the stages in `trains`."""


def tunables(plan: Plan, arms: Sequence[str]) -> Iterator[Tunable]:
    """Yield each learning rate with which stages of the given arms are trained. The rates in the schedule come first,
    then the rates that only one baseline uses. A stage is trained with a rate if its peak learning rate changes when
    the plan is made with twice this rate."""
    own = dict(_own_rates(plan.experiment))
    one = make_plan(with_values(replace(plan.experiment, seeds=1), own))
    affected: dict[str, set[tuple[str, str]]] = {}
    for key, rate in (*_schedule_rates(plan.experiment), *own.items()):
        other = make_plan(with_values(one.experiment, {key: 2 * rate}))
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


def ratio_of(plan: Plan, arms: Sequence[str], rates: Sequence[Tunable]) -> Tunable:
    """Return optim.embedding_ratio as a tunable setting, which is tuned after the learning rates `rates`. The setting
    is tuned for the stages of the given arms and for the stages of the chain from which these stages grow."""
    own = [stage for arm in plan.arms if arm.name in arms for stage in arm.stages]
    needed = {each.key for stage in own for each in plan.lineage(stage)}
    trains = [
        (arm.name, stage.size)
        for arm in plan.arms
        for stage in arm.stages
        if stage.spec.init_from is None and (arm.name in arms or (arm.name == plan.chain.name and stage.key in needed))
    ]
    after = tuple(rate.key for rate in rates)
    return Tunable(RATIO, plan.experiment.optim.embedding_ratio, tuple(dict.fromkeys(trains)), after)


def trained_by(tunable: Tunable, plan: Plan) -> dict[str, Stage]:
    """Return the stages of a plan that are trained with a tunable setting, by stage key, parents before children."""
    return {stage.key: stage for arm in plan.arms for stage in arm.stages if (arm.name, stage.size) in tunable.trains}


def _schedule_rates(experiment: Experiment) -> Iterator[tuple[str, float]]:
    usual = experiment.optim.lr
    for number, (name, part) in enumerate(experiment.schedule.stages.items()):
        stage = f"schedule.stages.{name}"
        if not number or experiment.schedule.branches is None:  # a trunk has the rate of the first stage
            yield f"{stage}.lr", part.lr or usual
        if number:  # the first stage is always trained from scratch
            yield f"{stage}.scratch_lr", part.scratch_lr or usual
        if part.transformer is not None:
            yield f"{stage}.transformer.lr", part.transformer.lr or usual
    if experiment.schedule.branches is None:
        yield "schedule.trained_on_lr", experiment.schedule.trained_on_lr or usual


def _own_rates(experiment: Experiment) -> Iterator[tuple[str, float]]:
    """Yield the key and the value of each learning rate that only one baseline uses, because that baseline sets a rate
    or its kind has `own_rate`. If the baseline sets no rate, the value is the rate of the last size in the schedule or,
    for TokenFormers with `schedule.branches`, of the first size. If the schedule sets no such rate, the value is
    optim.lr."""
    sizes = list(experiment.schedule.stages.values())
    last, grown = sizes[-1], sizes[-1 if experiment.schedule.branches is None else 0]
    for name, arm in experiment.baseline.arms.items():
        if arm.lr is not None or arm_kind(arm.kind).own_rate:
            schedules = last.transformer.lr if arm.transformer_growth is not None and last.transformer else grown.lr
            yield f"baseline.arms.{name}.lr", arm.lr or schedules or experiment.optim.lr


def with_values(experiment: Experiment, values: Mapping[str, float]) -> Experiment:
    """Return a copy of the experiment in which the settings named by the keys of `values` have the given values."""
    for key, value in values.items():
        experiment = _with(experiment, key.split("."), value)
    return experiment


def _with(part: Any, path: Sequence[str], value: float) -> Any:
    name, *rest = path
    if isinstance(part, dict):
        return {**part, name: _with(part[name], rest, value)}
    return replace(part, **{name: _with(getattr(part, name), rest, value) if rest else value})
