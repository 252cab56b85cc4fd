"""The chain of an experiment, in which each size grows from the previous one."""

from tfscale.config.schema import StagePart
from tfscale.plan.arms import Arm, cumulative_flops
from tfscale.plan.branches import branched
from tfscale.plan.specs import Specs, tokenformer
from tfscale.stage.folder import Stage


class Chain:
    """The planned chain of an experiment with one seed, against which the other arms are measured.

    Attributes:
        specs: factory of the stages.
        experiment: the composed configuration.
        arm: the chain as an arm.
        sizes: each size of the schedule with the stage that grows to it, smallest first.
        base: the chain's first stage.
    """

    def __init__(self, specs: Specs) -> None:
        self.specs, self.experiment = specs, specs.experiment
        parts = list(self.experiment.schedule.stages.values())
        stages = self._stages(parts)
        grown = Arm("progressive", f"progressive ({self.experiment.growth.name})", "chain", stages)
        self.arm = branched(grown, specs)
        self.sizes = tuple(zip(parts, stages, strict=True))
        self.base = stages[0]

    def _stages(self, parts: list[StagePart]) -> tuple[Stage, ...]:
        first, *others = parts
        stages = [self.specs.stage(first.size, self.specs.first(first))]
        for part in others:
            target = tokenformer(self.experiment, part, self.specs.corpus)
            growth = self.experiment.growth
            spec = self.specs.grown(stages[-1], target, self.specs.tokens(part), growth, self.rate(part.lr))
            stages.append(self.specs.stage(part.size, self.specs.ending(spec, part)))
        return tuple(stages)

    def rate(self, rate: float | None) -> float | None:
        """Return the peak learning rate of a stage that continues the chain's training, for which the schedule sets
        `rate`. A trunk keeps the learning rate of its first stage."""
        schedule = self.experiment.schedule
        return rate if schedule.branches is None else next(iter(schedule.stages.values())).lr

    def spent(self, target: Stage) -> int:
        """Return the model FLOPs of the chain up to the end of the model of a stage's size, including its branch."""
        model = next(model for model in self.arm.stages if model.size == target.size)
        return cumulative_flops(self.arm, model)

    def spent_after_base(self, target: Stage) -> int:
        """Return the model FLOPs of the chain after its first stage, up to the end of the model of a stage's size."""
        return self.spent(target) - cumulative_flops(self.arm, self.base)
