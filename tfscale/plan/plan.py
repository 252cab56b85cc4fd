"""The plan of an experiment, which determines the stages to train, their parents and their keys. This module writes no
files and trains no stages."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tfscale.config.compose import runs_dir
from tfscale.config.schema import Experiment
from tfscale.faults import Fault, UserFault
from tfscale.plan.arm_kind import ARM_KINDS
from tfscale.plan.arms import Arm, over_seeds
from tfscale.plan.chain import Chain
from tfscale.plan.checks import check_experiment
from tfscale.plan.corpus import Corpus, corpus_of
from tfscale.plan.rehearsal import rehearsal
from tfscale.plan.specs import Specs
from tfscale.stage.folder import Stage, has_undecided_end, lineage


@dataclass(frozen=True)
class Replicate:
    """The chain and its baselines, planned with one seed."""

    chain: Arm
    baselines: tuple[Arm, ...]

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All arms of this seed, the chain first."""
        return (self.chain, *self.baselines)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages of this seed, each once, parents before children."""
        return tuple({stage.key: stage for arm in self.arms for stage in arm.all_stages}.values())

    @property
    def decided(self) -> tuple[Stage, ...]:
        """Stages that can be trained before the plan must be made again. These are all stages or, if a rule or a trial
        may still end stages of the chain early, the stages of the chain up to and including the first of them."""
        for number, stage in enumerate(self.chain.all_stages, start=1):
            if has_undecided_end(stage):
                return self.chain.all_stages[:number]
        return self.stages


@dataclass(frozen=True)
class Plan:
    """The planned stages of an experiment, for all arms and seeds."""

    experiment: Experiment
    corpus: Corpus
    runs: Path
    replicates: tuple[Replicate, ...]

    @property
    def chain(self) -> Arm:
        """Chain of the first seed."""
        return self.replicates[0].chain

    @property
    def baselines(self) -> tuple[Arm, ...]:
        """Baselines of the first seed."""
        return self.replicates[0].baselines

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All arms, the chain first, each with the stages of all seeds."""
        return tuple(map(over_seeds, zip(*(replicate.arms for replicate in self.replicates), strict=True)))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, each once, parents before children, one seed after another."""
        return tuple(stage for replicate in self.replicates for stage in replicate.stages)

    def lineage(self, stage: Stage) -> list[Stage]:
        """Return a stage of the plan and its ancestors, the oldest first."""
        stages = {each.key: each for each in self.stages}
        return lineage(stage, lambda each: stages.get(each.spec.parent or ""))

    @property
    def decided(self) -> tuple[Stage, ...]:
        """Stages of all seeds that can be trained before the plan must be made again."""
        return tuple(stage for replicate in self.replicates for stage in replicate.decided)

    @property
    def known(self) -> "Plan":
        """The plan itself or, while the end of a stage of the chain is undecided, a copy of the plan without baselines.
        The budgets of the baselines depend on the cost of the chain, which is not known while an end is undecided."""
        if not any(has_undecided_end(stage) for replicate in self.replicates for stage in replicate.chain.all_stages):
            return self
        return replace(self, replicates=tuple(replace(each, baselines=()) for each in self.replicates))


def make_plan(experiment: Experiment) -> Plan:
    """Return the plan of an experiment for all arms and seeds. With `schedule.rehearse`, return the plan of its
    rehearsal. Raise UserFault if the settings are invalid, or if no plan can be made with them."""
    if faults := check_experiment(experiment):
        raise UserFault(faults)
    if experiment.schedule.rehearse:
        experiment = rehearsal(experiment)
    corpus = corpus_of(experiment)
    replicates = tuple(_replicate(each, corpus) for each in _with_seeds(experiment))
    return Plan(experiment, corpus, runs_dir(experiment), replicates)


def corpus_faults(experiment: Experiment) -> list[Fault]:
    """Return the faults with which `corpus_of` rejects the settings of an experiment, or an empty list if there are
    none."""
    try:
        corpus_of(experiment)
    except UserFault as fault:
        return fault.faults
    return []


def _with_seeds(experiment: Experiment) -> Iterator[Experiment]:
    """Yield a copy of the experiment for each seed, with this seed and with a separate order of the data. All arms of a
    copy use the same order."""
    for number in range(experiment.seeds):
        data = replace(experiment.data, shuffle_seed=experiment.data.shuffle_seed + number)
        yield replace(experiment, seed=experiment.seed + number, data=data)


def _replicate(experiment: Experiment, corpus: Corpus) -> Replicate:
    chain = Chain(Specs(experiment, corpus))
    arms = experiment.baseline.arms.items()
    baselines = tuple(ARM_KINDS.get(part.kind)(part).arm(name, chain) for name, part in arms)
    return Replicate(chain.arm, baselines)
