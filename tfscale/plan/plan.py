"""From an experiment to its stages: what will be trained, out of what, with which identity. Nothing is written and
nothing is run here."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tfscale.config.compose import runs_dir
from tfscale.config.schema import Experiment
from tfscale.faults import Fault, UserFault
from tfscale.plan.arm_kind import plan_arm
from tfscale.plan.arms import Arm, over_seeds
from tfscale.plan.chain import Chain
from tfscale.plan.checks import check_experiment
from tfscale.plan.corpus import Corpus, corpus_of
from tfscale.plan.rehearsal import rehearsal
from tfscale.plan.specs import Specs
from tfscale.stage.folder import Stage, is_open


@dataclass(frozen=True)
class Replicate:
    """The whole comparison with one seed."""

    seed: int
    chain: Arm
    baselines: tuple[Arm, ...]

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The chain first."""
        return (self.chain, *self.baselines)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Every stage once, parents before children."""
        return tuple({stage.key: stage for arm in self.arms for stage in arm.stages}.values())

    @property
    def decided(self) -> tuple[Stage, ...]:
        """Stages whose every number is known: all, or the chain up to the stage whose end a rule has yet to decide."""
        for number, stage in enumerate(self.chain.stages, start=1):
            if is_open(stage):
                return self.chain.stages[:number]
        return self.stages


@dataclass(frozen=True)
class Plan:
    """An experiment, decided."""

    experiment: Experiment
    corpus: Corpus
    runs: Path
    replicates: tuple[Replicate, ...]
    """One for each of `seeds`."""

    @property
    def chain(self) -> Arm:
        """Of the first seed."""
        return self.replicates[0].chain

    @property
    def baselines(self) -> tuple[Arm, ...]:
        """Of the first seed."""
        return self.replicates[0].baselines

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The chain first; each with the stages of all seeds."""
        return tuple(map(over_seeds, zip(*(replicate.arms for replicate in self.replicates), strict=True)))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Every stage once, parents before children; the first seed's whole comparison before the next one's."""
        return tuple(stage for replicate in self.replicates for stage in replicate.stages)

    @property
    def decided(self) -> tuple[Stage, ...]:
        """Those of all seeds that can be trained before the plan is made anew."""
        return tuple(stage for replicate in self.replicates for stage in replicate.decided)

    @property
    def known(self) -> "Plan":
        """The plan without what cannot be told yet: while a rule has a chain's stage to end, the baselines, whose
        budgets are what the chain will have cost."""
        if not any(is_open(stage) for replicate in self.replicates for stage in replicate.chain.stages):
            return self
        return replace(self, replicates=tuple(replace(each, baselines=()) for each in self.replicates))


def make_plan(experiment: Experiment) -> Plan:
    """The plan of an experiment.

    Raises:
        UserFault: with all that is wrong: settings that do not go together, sizes that do not grow out of each other, a
            missing Transformer shape, a corpus that is not there.
    """
    if faults := check_experiment(experiment):
        raise UserFault(faults)
    if experiment.schedule.rehearse:
        experiment = rehearsal(experiment)
    corpus = corpus_of(experiment)
    replicates = tuple(_replicate(each, corpus) for each in _with_seeds(experiment))
    return Plan(experiment, corpus, runs_dir(experiment), replicates)


def corpus_faults(experiment: Experiment) -> list[Fault]:
    """Why the settings make no corpus at all."""
    try:
        corpus_of(experiment)
    except UserFault as fault:
        return fault.faults
    return []


def _with_seeds(experiment: Experiment) -> Iterator[Experiment]:
    """The experiment once for each of its seeds. The order of the data moves with the seed: replicates differ in what
    chance decides, weights and order both; all arms of one replicate read the same text in the same order."""
    for number in range(experiment.seeds):
        data = replace(experiment.data, shuffle_seed=experiment.data.shuffle_seed + number)
        yield replace(experiment, seed=experiment.seed + number, data=data)


def _replicate(experiment: Experiment, corpus: Corpus) -> Replicate:
    chain = Chain(Specs(experiment, corpus))
    baselines = tuple(plan_arm(name, part, chain) for name, part in experiment.baseline.arms.items())
    return Replicate(experiment.seed, chain.arm, baselines)
