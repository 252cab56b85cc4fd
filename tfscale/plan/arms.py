"""The arms of an experiment, each a list of stages on disk."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tfscale.models.counts import flops
from tfscale.stage.folder import Stage


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
    """All stages, parents before children. Stages of one size are replicates: runs that differ only in their seed."""

    @property
    def key(self) -> str:
        """Hash of the keys of the stages, 12 hex digits, which identifies what the arm computes."""
        return hashlib.sha256(" ".join(stage.key for stage in self.stages).encode()).hexdigest()[:12]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the arm's replicates."""
        return tuple(dict.fromkeys(stage.spec.seed for stage in self.stages))

    def of_seed(self, seed: int) -> "Arm":
        """Return the replicate of one seed."""
        return replace(self, stages=tuple(stage for stage in self.stages if stage.spec.seed == seed))

    def by_seed(self) -> tuple["Arm", ...]:
        """Return one arm per seed, each with a separate name. The first one keeps the name of this arm."""
        first, *others = self.seeds
        named = [
            replace(self.of_seed(seed), name=f"{self.name} seed {seed}", title=f"{self.title}, seed {seed}")
            for seed in others
        ]
        return (self.of_seed(first), *named)


def cumulative_flops(chain: Arm, target: Stage) -> int:
    """Return the model FLOPs of a chain with one seed, up to and including a stage."""
    stages = chain.stages[: chain.stages.index(target) + 1]
    return sum(stage.spec.tokens * flops(stage.spec.model).training for stage in stages)


def over_seeds(replicates: Sequence[Arm]) -> Arm:
    """Return the replicates of an arm, combined into one arm."""
    return replace(replicates[0], stages=tuple(stage for arm in replicates for stage in arm.stages))
