"""The chain of an experiment, in which each size grows from the previous one."""

from dataclasses import replace

from tfscale.config.schedule import StagePart
from tfscale.plan.arms import Arm, cumulative_flops
from tfscale.plan.branches import branched
from tfscale.plan.rejection import kept, on_trial, trained_on
from tfscale.plan.specs import Specs, tokenformer
from tfscale.stage.folder import Stage
from tfscale.stage.spec import StageSpec


class Chain:
    """The chain of an experiment, planned for one seed. All other arms are compared with the chain.

    Attributes:
        sizes: pairs of a size in the schedule and the stage of the chain at this size, smallest size first. With
            `schedule.branches`, these stages are the trunk.
        base: first stage of the chain.
    """

    def __init__(self, specs: Specs) -> None:
        self.specs, self.experiment = specs, specs.experiment
        parts = list(self.experiment.schedule.stages.values())
        stages, detours = self._stages(parts)
        title = f"progressive ({self.experiment.growth.name})"
        self.arm = branched(Arm("progressive", title, "chain", stages, detours=detours), specs)
        if self.experiment.schedule.reject_growth is not None:
            all_kept, _ = self._stages(parts, keep=True)
            self.arm = replace(self.arm, planned=branched(replace(self.arm, stages=all_kept), specs).identity)
        self.sizes = tuple(zip(parts, stages, strict=True))
        self.base = stages[0]

    def _stages(self, parts: list[StagePart], keep: bool = False) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
        """Return the stages of all sizes and the detours (`Arm.detours`). With `keep=True`, no growth is rejected."""
        first, *others = parts
        stages, detours = [self.specs.stage(first.size, self.specs.first(first))], []
        for part in others:
            parent = stages[-1]
            stage = self.specs.stage(part.size, on_trial(self._grown(parent, part), self.specs))
            if keep:
                stage = kept(stage)
            elif stage.spec.rejected:
                back = trained_on(parent, stage, self.specs.tokens(part), self.rate(part.lr), self.specs)
                detours += [stage, back]
                stage = self.specs.stage(part.size, self._grown(back, part))
            stages.append(stage)
        return tuple(stages), tuple(detours)

    def _grown(self, parent: Stage, part: StagePart) -> StageSpec:
        target = tokenformer(self.experiment, part, self.specs.corpus)
        growth, rate = self.experiment.growth, self.rate(part.lr)
        return self.specs.ending(self.specs.grown(parent, target, self.specs.tokens(part), growth, rate), part)

    def rate(self, rate: float | None) -> float | None:
        """Return the peak learning rate of a stage after the first. Without `schedule.branches`, this is `rate`, the
        rate that the schedule sets for the stage. With `schedule.branches`, this is the rate of the first stage. None
        stands for optim.lr."""
        schedule = self.experiment.schedule
        return rate if schedule.branches is None else next(iter(schedule.stages.values())).lr

    def spent(self, target: Stage) -> int:
        """Return the cumulative model FLOPs of the chain up to its model of the same size as `target`. With
        `schedule.branches`, the FLOPs of the branch that ends with this model are included."""
        model = next(model for model in self.arm.stages if model.size == target.size)
        return cumulative_flops(self.arm, model)

    def spent_after_base(self, target: Stage) -> int:
        """Return the model FLOPs of `spent` without the model FLOPs of the chain's first stage."""
        return self.spent(target) - cumulative_flops(self.arm, self.base)
