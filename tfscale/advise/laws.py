"""Fitting of scaling laws to finished runs, for the target sizes and bases of a `Question`."""

from collections.abc import Sequence
from dataclasses import dataclass

from tfscale.advise.evidence import Family, grown_runs, measured_by_growth, measured_from_scratch, scratch_runs
from tfscale.advise.law import Law, Measured, fit
from tfscale.advise.question import Question
from tfscale.advise.runs import Run

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
    """Laws L(C) of training from scratch, one per target. Only model families for which the laws of all targets could
    be fitted are included."""
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
    """Return a mapping from the names of the fitted laws, as shown in the answer, to the laws."""
    scratch = {
        f"{target.size}, {family} from scratch": law
        for family, fitted in laws.scratch.items()
        for target, law in zip(question.targets, fitted, strict=True)
    }
    return scratch | {f"growth from {base}": law for base, law in laws.growth.items()}
