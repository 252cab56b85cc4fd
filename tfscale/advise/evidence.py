"""Selection of the runs to which scaling laws are fitted: those that have the recipe of an experiment.

A run has the recipe of an experiment if its data, batch size, optimizer, extensions, learning-rate schedule and growth
recipe are the same as in a stage that the experiment would plan. The number of tokens and the seed may differ. One law
is fitted to all runs that grew from the same base, regardless of the size that they grew to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tfscale.advise.law import Measured
from tfscale.advise.runs import Run, recipe_of
from tfscale.config.schedule import StagePart
from tfscale.plan.chain import Chain
from tfscale.plan.plan import Plan
from tfscale.plan.specs import Specs, tokenformer, transformer
from tfscale.stage.spec import StageSpec

Family = Literal["tokenformer", "transformer"]
COMPUTE = ("compute",)
GROWTH = ("base tokens", "stage tokens", "growth factor")


@dataclass(frozen=True)
class Recipe:
    """Settings of an experiment, from which it would plan stages that train a size from scratch or by growth."""

    chain: Chain

    @staticmethod
    def of_plan(plan: Plan) -> "Recipe":
        return Recipe(Chain(Specs(plan.experiment, plan.corpus)))

    @property
    def sizes(self) -> tuple[StagePart, ...]:
        """Sizes of the schedule, smallest first."""
        return tuple(part for part, _ in self.chain.sizes)

    def scratch(self, size: StagePart, family: Family = "tokenformer") -> StageSpec:
        """Return the spec of the stage that trains a size from scratch."""
        specs, tokens = self.chain.specs, self.chain.base.spec.tokens
        if family == "transformer":
            assert size.transformer is not None, "the size has no Transformer"
            shape = transformer(self.chain.experiment, size.transformer, specs.corpus)
            return specs.scratch(shape, tokens, size.transformer.lr)
        return specs.scratch(tokenformer(self.chain.experiment, size, specs.corpus), tokens, self.rate(size))

    def rate(self, size: StagePart) -> float | None:
        """Return the learning rate that the schedule sets for training a TokenFormer of a size from scratch, or None if
        the schedule does not set a learning rate."""
        return size.lr if size == self.sizes[0] else size.scratch_lr

    def grown(self, base: StagePart, target: StagePart) -> StageSpec:
        """Return the spec of the stage that grows a base to a target size."""
        specs, experiment = self.chain.specs, self.chain.experiment
        parent = specs.stage(base.size, self.scratch(base))
        model = tokenformer(experiment, target, specs.corpus)
        return specs.grown(parent, model, parent.spec.tokens, experiment.growth, self.chain.rate(target.lr))


def scratch_runs(
    recipe: Recipe, runs: Sequence[Run], size: StagePart, family: Family, decayed: bool = True
) -> list[Run]:
    """Return the runs that train a size from scratch. If `decayed` is True, only runs whose learning rate has decayed
    are returned, otherwise only runs whose learning rate has not decayed."""
    planned = recipe.scratch(size, family)
    alike = recipe_of(planned)
    return [
        run
        for run in runs
        if run.decayed == decayed
        and run.origin is None
        and run.model == planned.model
        and recipe_of(run.first) == alike
    ]


def grown_runs(recipe: Recipe, runs: Sequence[Run], base: StagePart, decayed: bool = True) -> list[Run]:
    """Return the runs that grew directly from a base that was trained from scratch. `decayed` has the same meaning as
    in `scratch_runs`."""
    start = recipe.scratch(base)
    later = recipe.sizes[recipe.sizes.index(base) + 1 :]
    alike = {recipe_of(recipe.grown(base, target)) for target in later}
    found = []
    for run in runs:
        origin = run.origin
        if run.decayed != decayed or origin is None or origin.origin is not None:
            continue
        grown = origin.model == start.model != run.model
        if grown and recipe_of(origin.first) == recipe_of(start) and recipe_of(run.first) in alike:
            found.append(run)
    return found


def measured_from_scratch(runs: Sequence[Run]) -> Measured:
    """Return the compute and final losses of runs from scratch, to which the law L(C) of one size is fitted."""
    values = np.array([[run.flops] for run in runs], dtype=float).reshape(-1, 1)
    return Measured(COMPUTE, values, np.array([run.loss for run in runs]), tuple(run.first.seed for run in runs))


def measured_by_growth(runs: Sequence[Run]) -> Measured:
    """Return the variables and final losses of grown runs, to which the law L(D_base, D_stage, growth factor) of one
    base is fitted. D is a number of training tokens."""
    rows = [(run.origin.tokens, run.tokens, run.factor) for run in runs if run.origin is not None]
    values = np.array(rows, dtype=float).reshape(-1, len(GROWTH))
    losses = np.array([run.loss for run in runs])
    seeds = tuple(run.first.seed for run in runs)
    return Measured(GROWTH, values, losses, seeds, has_product_term=True, floor_of=GROWTH.index("growth factor"))
