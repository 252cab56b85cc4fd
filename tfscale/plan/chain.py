"""The chain of an experiment, in which each size grows from the previous one."""

from tfscale.config.schema import StagePart
from tfscale.plan.arms import Arm, cumulative_flops
from tfscale.plan.specs import Specs, tokenformer
from tfscale.stage.folder import Stage


class Chain:
    """The planned chain of an experiment with one seed, against which the other arms are measured.

    Attributes:
        specs: factory of the stages.
        experiment: the composed configuration.
        arm: the chain as an arm.
        sizes: each size of the schedule with the chain's stage of that size, smallest first.
        base: the chain's first stage.
    """

    def __init__(self, specs: Specs) -> None:
        self.specs, self.experiment = specs, specs.experiment
        parts = list(self.experiment.schedule.stages.values())
        self.arm = Arm("progressive", f"progressive ({self.experiment.growth.name})", "chain", self._stages(parts))
        self.sizes = tuple(zip(parts, self.arm.stages, strict=True))
        self.base = self.arm.stages[0]

    def _stages(self, parts: list[StagePart]) -> tuple[Stage, ...]:
        first, *others = parts
        stages = [self.specs.stage(first.size, self.specs.first(first))]
        for part in others:
            target = tokenformer(self.experiment, part, self.specs.corpus)
            growth = self.experiment.growth
            spec = self.specs.grown(stages[-1], target, self.specs.tokens(part), growth, part.lr)
            stages.append(self.specs.stage(part.size, self.specs.ending(spec, part)))
        return tuple(stages)

    def spent(self, target: Stage) -> int:
        """Return the model FLOPs of the chain up to and including a stage."""
        return cumulative_flops(self.arm, target)

    def spent_after_base(self, target: Stage) -> int:
        """Return the model FLOPs of the chain after its first stage, up to and including a stage."""
        return self.spent(target) - self.spent(self.base)
