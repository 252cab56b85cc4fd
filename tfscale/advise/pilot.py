"""Short runs, called pilot runs, to which the laws for advice are fitted.

A base is trained at three budgets, and each result is grown to each target at three budgets. Each target is also
trained from scratch at five of the nine resulting total budgets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tfscale.advise.law import FAR
from tfscale.advise.laws import grown_runs
from tfscale.advise.question import Question
from tfscale.advise.runs import Run
from tfscale.config.schedule import StagePart
from tfscale.config.schema import BaselinePart
from tfscale.plan.plan import Plan, make_plan
from tfscale.predict import Prediction
from tfscale.stage.folder import Stage, is_done

LARGEST = 0.9 * FAR
"""Ratio of the question's budget to the largest budget of the pilot runs, for the base and all targets together."""
LEVELS = 3
RANGE = 36.0
"""Maximum ratio of the largest to the smallest number of training tokens at one size."""
FEWEST_STEPS = 100
"""Minimum number of optimizer steps of a pilot stage. The laws do not hold at the very beginning of training."""


@dataclass(frozen=True)
class Pilot:
    """Plans of pilot runs. The plans can be trained one after another."""

    plans: tuple[Plan, ...]
    left: tuple[tuple[Stage, Prediction], ...]
    """Pairs of an unfinished stage of the plans and its predicted cost. Stages that several plans contain are listed
    once."""


def plan_pilot(question: Question, plan: Plan, runs: Sequence[Run]) -> Pilot:
    """Return the pilot runs for a question. Their largest budget is the question's budget divided by `LARGEST`, or more
    if `LEVELS` different budgets of at least `FEWEST_STEPS` steps require it. The runs grow from the base from which
    the largest number of finished runs have grown or, if there are several such bases, from the largest of them.

    Args:
        plan: plan of the experiment, with the arms from scratch as baselines.
    """
    base = max(reversed(question.bases), key=lambda each: len(grown_runs(question.recipe, runs, each)))
    plans = tuple(each for target in question.targets for each in _cells(question, plan, base, target))
    stages = {stage.key: stage for each in plans for stage in each.stages if not is_done(stage)}
    return Pilot(plans, tuple((stage, question.predict(stage.spec)) for stage in stages.values()))


def _cells(question: Question, plan: Plan, base: StagePart, target: StagePart) -> Iterator[Plan]:
    recipe, batch = question.recipe, plan.experiment.optim.batch_tokens
    most = question.budget.amount / LARGEST / 2
    before = _levels(most / question.price(recipe.scratch(base)).amount, batch)
    after = _levels(most / len(question.targets) / question.price(recipe.grown(base, target)).amount, batch)
    for number, base_tokens in enumerate(before):
        for place, tokens in enumerate(after):
            sizes = (
                replace(base, tokens=base_tokens, lr=recipe.rate(base), scratch_lr=None),
                replace(target, tokens=tokens),
            )
            yield _two_sizes(plan, sizes, with_scratch=place in (number, number + 1))


def _levels(most: float, batch: int) -> list[int]:
    """Return `LEVELS` numbers of tokens, rounded to whole steps. The largest number is `most`, or 4^(LEVELS - 1) times
    the minimum (`FEWEST_STEPS`) if `most` is smaller, so that the numbers differ."""
    least = FEWEST_STEPS * batch
    most = max(most, 4.0 ** (LEVELS - 1) * least)
    return [round(tokens / batch) * batch for tokens in np.geomspace(max(most / RANGE, least), most, LEVELS)]


def _two_sizes(plan: Plan, sizes: tuple[StagePart, StagePart], with_scratch: bool) -> Plan:
    experiment = plan.experiment
    schedule = replace(experiment.schedule, stages={"base": sizes[0], "target": sizes[1]})
    arms = {name: replace(arm, sizes="last") for name, arm in experiment.baseline.arms.items()}
    baseline = BaselinePart(arms if with_scratch else {})
    return make_plan(replace(experiment, schedule=schedule, baseline=baseline))
