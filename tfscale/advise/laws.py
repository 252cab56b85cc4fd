"""Scaling laws and measurements of growth, from the finished runs, for the sizes of a `Question`."""

from collections.abc import Sequence
from dataclasses import dataclass

from tfscale.advise.evidence import (
    Family,
    grown_runs,
    measured_by_growth,
    measured_from_scratch,
    scratch_runs,
)
from tfscale.advise.law import Law, Measured, fit
from tfscale.advise.mixing import Mixing, mixing_times
from tfscale.advise.multiplier import Multiplier, multipliers
from tfscale.advise.question import Question
from tfscale.advise.runs import Run

TITLES: dict[Family, str] = {"tokenformer": "TokenFormer", "transformer": "Transformer"}


@dataclass(frozen=True)
class MissingBudgets:
    """Law that cannot be fitted yet because there are too few runs."""

    law: str
    """Name of the law."""
    budgets: int
    """Number of different budgets among the finished runs to which the law would be fitted."""
    needed: int
    """Minimum number of different budgets for a fit."""


@dataclass(frozen=True, eq=False)
class Laws:
    """Fitted laws, and laws that cannot be fitted yet."""

    scratch: dict[Family, list[Law]]
    """Laws L(C), one per target, for each model family in which the laws of all targets could be fitted."""
    growth: dict[str, Law]
    """Laws L(D_base, D_stage, growth factor), by base."""
    lacking: tuple[MissingBudgets, ...]


@dataclass(frozen=True)
class Observed:
    """Measurements of growth from a base to a target, which need no law."""

    base: str
    target: str
    multipliers: tuple[Multiplier, ...]
    """Compute multipliers against the TokenFormer from scratch."""
    mixing: tuple[Mixing, ...]


def fit_laws(question: Question, runs: Sequence[Run]) -> Laws:
    """Return the laws for the targets and bases of a question. Laws with too few runs are not fitted but listed as
    lacking."""
    lacking: list[MissingBudgets] = []

    def fitted(name: str, measured: Measured) -> Law | None:
        if measured.suffices:
            return fit(measured)
        lacking.append(MissingBudgets(name, measured.different, measured.needed))
        return None

    scratch: dict[Family, list[Law]] = {}
    for family in _families(question):
        points = {
            target.size: measured_from_scratch(scratch_runs(question.recipe, runs, target, family))
            for target in question.targets
        }
        found = [fitted(f"{size}, {TITLES[family]} from scratch", each) for size, each in points.items()]
        laws = [law for law in found if law is not None]
        if len(laws) == len(found):
            scratch[family] = laws
    growth = {
        base.size: law
        for base in question.bases
        if (law := fitted(f"growth from {base.size}", measured_by_growth(grown_runs(question.recipe, runs, base))))
    }
    return Laws(scratch, growth, tuple(lacking))


def named_laws(question: Question, laws: Laws) -> dict[str, Law]:
    """Return the fitted laws by their names in the answer."""
    scratch = {
        f"{target.size}, {family} from scratch": law
        for family, fitted in laws.scratch.items()
        for target, law in zip(question.targets, fitted, strict=True)
    }
    return scratch | {f"growth from {base}": law for base, law in laws.growth.items()}


def _families(question: Question) -> list[Family]:
    shaped = all(target.transformer is not None for target in question.targets)
    return ["tokenformer", "transformer"] if shaped else ["tokenformer"]


def observe(question: Question, runs: Sequence[Run], laws: Laws) -> tuple[Observed, ...]:
    """Return the measured compute multipliers and mixing times of each growth to a target. For mixing times, losses
    count as equal if they differ by at most the scatter of runs about the target's law. Without this law, they must be
    equal."""
    fitted = laws.scratch.get("tokenformer", [])
    found = []
    for place, target in enumerate(question.targets):
        within = fitted[place].noise if fitted else 0.0
        scratch = {
            decayed: scratch_runs(question.recipe, runs, target, "tokenformer", decayed) for decayed in (True, False)
        }
        for base in question.bases:
            model = question.recipe.grown(base, target).model
            grown = {
                decayed: [run for run in grown_runs(question.recipe, runs, base, decayed) if run.model == model]
                for decayed in (True, False)
            }
            of_costs = multipliers(scratch[True], grown[True])
            times = mixing_times(scratch[False], grown[False], within)
            found += [Observed(base.size, target.size, of_costs, times)] if of_costs or times else []
    return tuple(found)
