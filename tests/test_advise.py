"""Advice from runs with planted losses, and from too few runs."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finished import overrides_of
from typer.testing import CliRunner

from tfscale.advise.evidence import Recipe
from tfscale.advise.pilot import Pilot, plan_pilot
from tfscale.advise.question import ask
from tfscale.advise.runs import growth_factor, read_runs
from tfscale.cli.main import app
from tfscale.config.compose import compose
from tfscale.models.counts import flops
from tfscale.plan.plan import make_plan
from tfscale.predict import planned_machine, predict
from tfscale.stage.folder import Stage
from tfscale.stage.result import FinalEvaluation, Result, write_result
from tfscale.stage.spec import write_spec
from tfscale.totals import Totals

BUDGET = 1e11
Losses = Callable[[list[Stage]], float]
"""Function from the lineage of a stage to its final loss."""


@pytest.fixture(scope="module")
def overrides(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    runs = tmp_path_factory.mktemp("advise")
    return [*overrides_of(corpus, runs), "launcher.device=cpu"]


def pilot_of(overrides: list[str]) -> Pilot:
    plan = make_plan(compose([*overrides, "baseline=[tokenformer,transformer]"]))
    machine = planned_machine(plan.experiment)
    amounts = {"--flops": BUDGET, "--hours": None, "--dollars": None}
    question = ask(Recipe.of_plan(plan), ["254K"], amounts, lambda spec: predict(spec, machine, []))
    return plan_pilot(question, plan, read_runs(plan.runs).runs)


def plant(pilot: Pilot, losses: Losses) -> None:
    """Write the stages of a pilot as finished ones with planted losses."""
    stages = {stage.key: stage for stage, _ in pilot.left}
    for stage in stages.values():
        lineage = [stage]
        while (parent := lineage[0].spec.parent) is not None:
            lineage.insert(0, stages[parent])
        stage.path.mkdir(parents=True)
        write_spec(stage.path, stage.spec)
        spent = [Totals(each.spec.tokens, compute(each), 1.0, 1.0, None, 0) for each in lineage]
        total = sum(spent[1:], spent[0])
        loss = losses(lineage)
        last = FinalEvaluation(loss, math.exp(loss), loss)
        before = total - spent[-1]
        write_result(stage.path, Result(stage.key, stage.spec.steps, stage.spec.tokens, before, total, last, "step-1"))


def compute(stage: Stage) -> int:
    return stage.spec.tokens * flops(stage.spec.model).training


def planted(lineage: list[Stage], advantage: float) -> float:
    """A law from scratch, and one for growth that is lower by `advantage` at equal compute in this regime."""
    spent = sum(map(compute, lineage))
    wobble = 1 + 0.001 * math.sin(spent)
    if len(lineage) == 1:
        return wobble * (1.5 + 1.5 * (spent / 1e10) ** -0.2)
    base, grown = (stage.spec for stage in lineage)
    assert growth_factor(base.model, grown.model) > 1
    return wobble * (1.5 - advantage + 1.5 * (base.tokens / 1e5) ** -0.1 * (grown.tokens / 1e5) ** -0.1)


def advise(overrides: list[str], *more: str) -> Any:
    result = CliRunner().invoke(app, ["advise", *overrides, "--size", "254K", *more, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_x(overrides: list[str]) -> None:
    first = advise(overrides, "--flops", f"{BUDGET:g}")
    pilot = pilot_of(overrides)
    plant(pilot, lambda l: planted(l, 0.3))
    print([ (s.spec.label, s.spec.tokens) for s,_ in pilot.left])
    print(json.dumps(advise(overrides, "--flops", f"{BUDGET:g}"), indent=1))
    print(CliRunner().invoke(app, ["advise", *overrides, "--size", "254K", "--flops", "1e10"], catch_exceptions=False).output)
    print(CliRunner().invoke(app, ["advise", *overrides, "--size", "254K", "--flops", "1e13"], catch_exceptions=False).output)
