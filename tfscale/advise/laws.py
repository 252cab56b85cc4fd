"""Laws and measurements that the finished runs support for a question."""

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
class Lack:
    """A law that cannot be fitted yet."""

    law: str
    """Name of the law."""
    budgets: int
    """Number of different budgets among the finished runs that belong to it."""
    needed: int
    """Minimum number of different budgets."""


@dataclass(frozen=True, eq=False)
class Laws:
    """Fitted laws, and those that the runs do not support."""

    scratch: dict[Family, list[Law]]
    """Laws L(C) of the targets, for each family with laws of all targets."""
    growth: dict[str, Law]
    """Laws L(D_base, D_stage, growth factor), by base."""
    lacking: tuple[Lack, ...]


@dataclass(frozen=True)
class Observed:
    """Measurements of growth from a base to a target, which no law is needed for."""

    base: str
    target: str
    multipliers: tuple[Multiplier, ...]
    """Compute multipliers against the TokenFormer from scratch."""
    mixing: tuple[Mixing, ...]


def fit_laws(question: Question, runs: Sequence[Run]) -> Laws:
    """Return the laws of a question's sizes that can be fitted to runs."""
    lacking: list[Lack] = []

    def fitted(name: str, measured: Measured) -> Law | None:
        if measured.suffices:
            return fit(measured)
        lacking.append(Lack(name, measured.different, measured.needed))
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


def _families(question: Question) -> list[Family]:
    shaped = all(target.transformer is not None for target in question.targets)
    return ["tokenformer", "transformer"] if shaped else ["tokenformer"]


def observe(question: Question, runs: Sequence[Run], laws: Laws) -> tuple[Observed, ...]:
    """Return the measured compute multipliers and mixing times of each growth to a target. Losses count as equal within
    the scatter of runs about the target's law, or else if they are equal."""
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
