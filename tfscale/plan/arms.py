"""The arms of an experiment, each a list of stages on disk."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tfscale.models.counts import flops
from tfscale.stage.folder import Stage, lineage

Role = Literal["model", "trunk", "reading"]
"""Role of a stage in an arm. `model`: it ends with a model that is compared. `trunk`: models branch from it. `reading`:
it ends with a model at another budget, whose loss is read for costs at equal perplexity."""


@dataclass(frozen=True)
class Arm:
    """A list of stages that train models of the sizes in a schedule by one method, such as growth."""

    name: str
    """Name of the arm, such as `progressive` or `transformer_scratch`."""
    title: str
    """Title for legends and tables."""
    kind: str
    """Kind of the arm, a name in `tfscale.plan.arm_kind.ARM_KINDS`. In an arm of kind `chain`, each stage grows from
    the previous stage."""
    stages: tuple[Stage, ...]
    """Stages that end with the models of the arm. Without a trunk, these are all stages, parents before children.
    Stages of one size are replicates: runs that differ only in their seed."""
    trunk: tuple[Stage, ...] = ()
    """Stages from which the models branch (`tfscale.plan.branches`), parents before children."""
    readings: tuple[Stage, ...] = ()
    """Branches at the budgets of other sizes."""

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        """All stages, parents before children, with the branches of each stage of the trunk after this stage."""
        branches = (*self.readings, *self.stages)
        apart = [(stage, *(each for each in branches if each.spec.parent == stage.key)) for stage in self.trunk]
        return tuple(stage for group in apart for stage in group) or self.stages

    @property
    def key(self) -> str:
        """Hash of the keys of the arm's stages (12 hexadecimal digits), which identifies what the arm computes.

        For an arm with a trunk, only the trunk's stages and the last branch are hashed, because the keys of the other
        branches change when a rule ends the trunk's stages."""
        stages = (*self.trunk, self.stages[-1]) if self.trunk else self.stages
        return hashlib.sha256(" ".join(stage.key for stage in stages).encode()).hexdigest()[:12]

    def role(self, stage: Stage) -> Role:
        """Return the role of a stage of the arm."""
        return "trunk" if stage in self.trunk else "reading" if stage in self.readings else "model"

    def label(self, stage: Stage) -> str:
        """Return the size of a stage and its role unless it is a model, such as `354M trunk`."""
        role = self.role(stage)
        return stage.size if role == "model" else f"{stage.size} {role}"

    def lineage(self, stage: Stage) -> list[Stage]:
        """Return a stage of the arm and its ancestors in the arm, ordered from the oldest."""
        stages = {each.key: each for each in self.all_stages}
        return lineage(stage, lambda each: stages.get(each.spec.parent or ""))

    def run_of(self, stage: Stage) -> list[Stage]:
        """Return the stages in which a model of the arm is trained at its size, ordered from the oldest."""
        return [each for each in self.lineage(stage) if each.size == stage.size]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the arm's replicates."""
        return tuple(dict.fromkeys(stage.spec.seed for stage in self.stages))

    def of_seed(self, seed: int) -> "Arm":
        """Return the replicate of one seed."""
        groups = ([s for s in group if s.spec.seed == seed] for group in (self.stages, self.trunk, self.readings))
        stages, trunk, readings = map(tuple, groups)
        return replace(self, stages=stages, trunk=trunk, readings=readings)

    def by_seed(self) -> tuple["Arm", ...]:
        """Return one arm per seed, each with a separate name. The first one keeps the name of this arm."""
        first, *others = self.seeds
        named = [
            replace(self.of_seed(seed), name=f"{self.name} seed {seed}", title=f"{self.title}, seed {seed}")
            for seed in others
        ]
        return (self.of_seed(first), *named)


def cumulative_flops(chain: Arm, target: Stage) -> int:
    """Return the model FLOPs of a stage of a chain and of its ancestors."""
    return sum(stage.spec.tokens * flops(stage.spec.model).training for stage in chain.lineage(target))


def over_seeds(replicates: Sequence[Arm]) -> Arm:
    """Return the replicates of an arm, combined into one arm."""
    stages, trunk, readings = (
        tuple(stage for arm in replicates for stage in getattr(arm, group)) for group in ("stages", "trunk", "readings")
    )
    return replace(replicates[0], stages=stages, trunk=trunk, readings=readings)


def rejoined(arms: Iterable[Arm]) -> tuple[Arm, ...]:
    """Return arms that `Arm.by_seed` separated, each with the stages of all seeds. If several arms have the same name,
    only the first is used."""
    groups: dict[str, dict[str, Arm]] = {}
    for arm in arms:
        groups.setdefault(arm.name.partition(" seed ")[0], {}).setdefault(arm.name, arm)
    return tuple(over_seeds(list(group.values())) for group in groups.values())
