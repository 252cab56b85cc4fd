"""The arms of an experiment. An arm is a list of stages that train models of the sizes in a schedule by one method."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tfscale.models.counts import flops
from tfscale.stage.folder import Stage, lineage

Role = Literal["model", "trunk", "reading", "rejected", "continued"]
"""Role of a stage in an arm. `model`: the stage ends with a model that is compared. `trunk`: branches start from the
stage. `reading`: the stage is a branch that ends at a budget other than the budget of its size, so that costs at equal
perplexity can be computed. `rejected`: the growth of the stage was rejected. `continued`: the stage trains the parent
further after a rejected growth."""
GROUPS = ("stages", "trunk", "readings", "detours", "planned")
"""Fields of an arm that contain stages."""


@dataclass(frozen=True)
class Arm:
    """A list of stages that train models of the sizes in a schedule by one method, such as growth."""

    name: str
    """Name of the arm, such as `progressive` or `transformer_scratch`."""
    title: str
    kind: str
    """Name of the arm's kind in `tfscale.plan.arm_kind.ARM_KINDS`. In an arm of kind `chain`, each size grows from the
    previous size."""
    stages: tuple[Stage, ...]
    """Stages that end with the models of the arm, parents before children. Several stages of the same size are
    replicates, which differ in the random seed and in the order of the data."""
    trunk: tuple[Stage, ...] = ()
    """Stages from which the models branch (`tfscale.plan.branches`), parents before children."""
    readings: tuple[Stage, ...] = ()
    """Branches that end at budgets other than the budget of their size. They are not compared as models, but provide
    losses from which costs at equal perplexity are computed."""
    detours: tuple[Stage, ...] = ()
    """Stages of the detours that rejected growths cause (`tfscale.plan.rejection`). A detour consists of the stage
    whose growth was rejected, followed by the stage that trains the parent further."""
    planned: tuple[Stage, ...] = ()
    """Stages that identify the chain (`identity`), as planned if no growth is rejected. Empty in other arms and without
    `schedule.reject_growth`."""

    @property
    def main_line(self) -> tuple[Stage, ...]:
        """Stages of the trunk or, in an arm without a trunk, the stages that end with the models. If the first growth
        to a size was rejected, the rejected stage and the stage that trains the parent further come before the stage of
        this size."""
        return tuple(each for stage in self.trunk or self.stages for each in self._with_detour(stage))

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        """All stages except those in `planned`, parents before children. Each stage of the trunk is followed by its
        branches."""
        branches = (*self.readings, *self.stages) if self.trunk else ()
        apart = [(stage, *(each for each in branches if each.spec.parent == stage.key)) for stage in self.main_line]
        return tuple(stage for group in apart for stage in group)

    @property
    def identity(self) -> tuple[Stage, ...]:
        """Stages whose keys identify the arm. In an arm with a trunk, these are the trunk and the last branch. The
        other branches are left out, because their keys change when a rule ends a stage of the trunk early."""
        return self.planned or ((*self.trunk, self.stages[-1]) if self.trunk else self.stages)

    @property
    def key(self) -> str:
        """Hash of the keys of the stages in `identity` (12 hexadecimal digits)."""
        return hashlib.sha256(" ".join(stage.key for stage in self.identity).encode()).hexdigest()[:12]

    def role(self, stage: Stage) -> Role:
        if stage in self.detours:
            return "rejected" if stage.spec.rejected else "continued"
        return "trunk" if stage in self.trunk else "reading" if stage in self.readings else "model"

    def label(self, stage: Stage) -> str:
        """Return the size of a stage, and its role if the role is not `model`, such as `354M trunk`."""
        role = self.role(stage)
        return stage.size if role == "model" else f"{stage.size} {role}"

    def lineage(self, stage: Stage) -> list[Stage]:
        """Return a stage of the arm and its ancestors in the arm, the oldest first."""
        stages = {each.key: each for each in self.all_stages}
        return lineage(stage, lambda each: stages.get(each.spec.parent or ""))

    def run_of(self, stage: Stage) -> list[Stage]:
        """Return a stage and those of its ancestors in the arm that have the same size, the oldest first. Stages in
        `detours` are left out."""
        return [each for each in self.lineage(stage) if each.size == stage.size and each not in self.detours]

    def detour_of(self, stage: Stage) -> list[Stage]:
        """Return the stages of the detour that precedes the growth to the size of `stage`, the rejected stage first.
        Return an empty list if no growth to this size was rejected."""
        return self._with_detour(self.run_of(stage)[0])[:-1]

    def _with_detour(self, stage: Stage) -> list[Stage]:
        detours = {each.key: each for each in self.detours}
        return lineage(stage, lambda each: detours.get(each.spec.parent or ""))

    def map_groups(self, change: Callable[[tuple[Stage, ...]], Iterable[Stage]]) -> "Arm":
        """Return a copy of the arm in which `change` has been applied to each group of stages (`GROUPS`)."""
        groups: dict[str, Any] = {name: tuple(change(getattr(self, name))) for name in GROUPS}
        return replace(self, **groups)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(stage.spec.seed for stage in self.stages))

    def of_seed(self, seed: int) -> "Arm":
        """Return the arm with only the stages of one seed."""
        return self.map_groups(lambda stages: [stage for stage in stages if stage.spec.seed == seed])

    def replicates_of(self, stage: Stage) -> list[Stage]:
        """Return the stages of all seeds that correspond to `stage`. Among all stages of one seed with the same size
        and role, the corresponding stage has the same position as `stage`. Seeds without such a stage are left out."""
        label = self.label(stage)
        alike = [[each for each in self.of_seed(seed).all_stages if self.label(each) == label] for seed in self.seeds]
        position = next(stages.index(stage) for stages in alike if stage in stages)
        return [stages[position] for stages in alike if position < len(stages)]

    def by_seed(self) -> tuple["Arm", ...]:
        """Return one arm per seed, each with a separate name. The arm of the first seed keeps the name of this arm."""
        first, *others = self.seeds
        named = [
            replace(self.of_seed(seed), name=f"{self.name} seed {seed}", title=f"{self.title}, seed {seed}")
            for seed in others
        ]
        return (self.of_seed(first), *named)


def training_flops(stages: Iterable[Stage]) -> int:
    """Return the total model FLOPs of training the given stages, without the FLOPs of optimizer updates."""
    return sum(stage.spec.tokens * flops(stage.spec.model).training for stage in stages)


def cumulative_flops(chain: Arm, target: Stage) -> int:
    """Return the model FLOPs of training a stage of a chain, `target`, and all of its ancestors in the chain."""
    return training_flops(chain.lineage(target))


def over_seeds(replicates: Sequence[Arm]) -> Arm:
    """Return one arm with the stages of all arms in `replicates`, which are replicates of this arm with different
    seeds."""
    groups: dict[str, Any] = {name: tuple(s for arm in replicates for s in getattr(arm, name)) for name in GROUPS}
    return replace(replicates[0], **groups)


def rejoined(arms: Iterable[Arm]) -> tuple[Arm, ...]:
    """Return arms with the stages of all seeds, joined from arms that `Arm.by_seed` has split. If several of the given
    arms have the same name, only the first of them is used."""
    groups: dict[str, dict[str, Arm]] = {}
    for arm in arms:
        groups.setdefault(arm.name.partition(" seed ")[0], {}).setdefault(arm.name, arm)
    return tuple(over_seeds(list(group.values())) for group in groups.values())
