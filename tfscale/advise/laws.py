"""Fitting of scaling laws to finished runs, for the target sizes and bases of a `Question`.

A law is fitted only to runs that have the recipe of the experiment: their data, batch size, optimizer, extensions,
learning-rate schedule and growth recipe are the same as in a stage that the experiment would plan. The number of tokens
and the seed may differ. One law is fitted to all runs that grew from the same base, regardless of the size that they
grew to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfscale.advise.law import Law, Measured, fit
from tfscale.advise.question import Family, Question, Recipe
from tfscale.advise.runs import Run, recipe_of
from tfscale.config.schedule import StagePart

COMPUTE = ("compute",)
GROWTH = ("base tokens", "stage tokens", "growth factor")
TITLES: dict[Family, str] = {"tokenformer": "TokenFormer", "transformer": "Transformer"}


@dataclass(frozen=True)
class MissingBudgets:
    """Law that cannot be fitted yet, because the finished runs do not suffice (`Measured.suffices`). `budgets` is the
    number of different budgets of the runs, and `needed` the number that a fit requires."""

    law: str
    budgets: int
    needed: int


@dataclass(frozen=True, eq=False)
class Laws:
    """Fitted laws, and laws that cannot be fitted yet."""

    scratch: dict[Family, list[Law]]
    """Laws L(C) of training from scratch, one per target, by model family. Only model families for which the laws of
    all targets could be fitted are included."""
    growth: dict[str, Law]
    """Mapping from the name of a base to its law L(D_base, D_stage, growth factor)."""
    lacking: tuple[MissingBudgets, ...]


def fit_laws(question: Question, runs: Sequence[Run]) -> Laws:
    """Return the laws for the targets and bases of a question. Laws with too few runs are not fitted, but listed in
    `lacking`."""
    lacking: list[MissingBudgets] = []

    def fitted(name: str, measured: Measured) -> Law | None:
        if measured.suffices:
            return fit(measured)
        lacking.append(MissingBudgets(name, measured.different, measured.needed))
        return None

    scratch: dict[Family, list[Law]] = {}
    shaped = all(target.transformer is not None for target in question.targets)
    families: list[Family] = ["tokenformer", "transformer"] if shaped else ["tokenformer"]
    for family in families:
        measured = [_from_scratch(scratch_runs(question.recipe, runs, target, family)) for target in question.targets]
        names = [f"{target.size}, {TITLES[family]} from scratch" for target in question.targets]
        found = list(map(fitted, names, measured))
        laws = [law for law in found if law is not None]
        if len(laws) == len(found):
            scratch[family] = laws
    growth = {
        base.size: law
        for base in question.bases
        if (law := fitted(f"growth from {base.size}", _by_growth(grown_runs(question.recipe, runs, base))))
    }
    return Laws(scratch, growth, tuple(lacking))


def named_laws(question: Question, laws: Laws) -> dict[str, Law]:
    """Return a mapping from the names of the fitted laws, as shown in the answer, to the laws."""
    scratch = {
        f"{target.size}, {family} from scratch": law
        for family, fitted in laws.scratch.items()
        for target, law in zip(question.targets, fitted, strict=True)
    }
    return scratch | {f"growth from {base}": law for base, law in laws.growth.items()}


def scratch_runs(
    recipe: Recipe, runs: Sequence[Run], size: StagePart, family: Family, decayed: bool = True
) -> list[Run]:
    """Return the runs that train a model of the given size and family from scratch with a recipe. If `decayed` is True,
    only runs whose learning rate has decayed are returned, otherwise only runs whose learning rate has not decayed."""
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
    """Return the runs that grew, with a recipe, directly from a base that was trained from scratch. `decayed` has the
    same meaning as in `scratch_runs`."""
    start = recipe.scratch(base)
    later = recipe.sizes[recipe.sizes.index(base) + 1 :]
    alike = {recipe_of(recipe.grown(base, target)) for target in later}
    return [
        run
        for run in runs
        if run.decayed == decayed
        and run.origin is not None
        and run.origin.origin is None
        and run.origin.model == start.model != run.model
        and recipe_of(run.origin.first) == recipe_of(start)
        and recipe_of(run.first) in alike
    ]


def _from_scratch(runs: Sequence[Run]) -> Measured:
    """Return the compute and final losses of runs from scratch, to which the law L(C) of one size is fitted."""
    values = np.array([[run.flops] for run in runs], dtype=float).reshape(-1, 1)
    return Measured(COMPUTE, values, np.array([run.loss for run in runs]), tuple(run.first.seed for run in runs))


def _by_growth(runs: Sequence[Run]) -> Measured:
    """Return the variables and final losses of grown runs, to which the law L(D_base, D_stage, growth factor) of one
    base is fitted. D is a number of training tokens."""
    rows = [(run.origin.tokens, run.tokens, run.factor) for run in runs if run.origin is not None]
    values = np.array(rows, dtype=float).reshape(-1, len(GROWTH))
    losses = np.array([run.loss for run in runs])
    seeds = tuple(run.first.seed for run in runs)
    return Measured(GROWTH, values, losses, seeds, has_product_term=True, floor_of=GROWTH.index("growth factor"))
