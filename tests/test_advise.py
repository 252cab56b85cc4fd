"""Advice from runs with planted losses, and from too few runs."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finished import overrides_of
from schemas import checked
from typer.testing import CliRunner

from tfscale.advise.pilot import Pilot, plan_pilot
from tfscale.advise.question import Recipe, ask
from tfscale.advise.runs import growth_factor, read_runs
from tfscale.cli.main import app
from tfscale.config.compose import compose
from tfscale.faults import UserFault
from tfscale.models.counts import flops
from tfscale.plan.plan import make_plan
from tfscale.predict import planned_machine, predict
from tfscale.stage.folder import Stage
from tfscale.stage.result import FinalEvaluation, Result, write_result
from tfscale.stage.spec import write_spec
from tfscale.totals import Totals

BUDGET = 1e12
Losses = Callable[[list[Stage]], float]
"""Function from the lineage of a stage to its final loss."""


@pytest.fixture(scope="module")
def overrides(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    runs = tmp_path_factory.mktemp("advise")
    return [*overrides_of(corpus, runs), "launcher.device=cpu"]


def pilot_of(overrides: list[str], budget: float = BUDGET) -> Pilot:
    plan = make_plan(compose([*overrides, "baseline=[tokenformer,transformer]"]))
    machine = planned_machine(plan.experiment)
    amounts = {"--flops": budget, "--hours": None, "--dollars": None}
    question = ask(Recipe.of_plan(plan), ["254K"], amounts, lambda spec: predict(spec, machine, []))
    return plan_pilot(question, plan, read_runs(plan.runs).runs)


def plant(losses: Losses, *pilots: Pilot) -> None:
    """Write the stages of pilots as finished ones with planted losses."""
    stages = {stage.key: stage for pilot in pilots for stage, _ in pilot.left}
    for stage in stages.values():
        lineage = [stage]
        while (parent := lineage[0].spec.parent) is not None:
            lineage.insert(0, stages[parent])
        stage.path.mkdir(parents=True, exist_ok=True)
        write_spec(stage.path, stage.spec)
        spent = [Totals(each.spec.tokens, compute(each), 1.0, 1.0, None, 0) for each in lineage]
        total = sum(spent[1:], spent[0])
        loss = losses(lineage)
        last = FinalEvaluation(loss, math.exp(loss), loss)
        before = total - spent[-1]
        write_result(stage.path, Result(stage.key, stage.spec.steps, stage.spec.tokens, before, total, last, "step-1"))


def compute(stage: Stage) -> int:
    return stage.spec.tokens * flops(stage.spec.model).training


def planted(lineage: list[Stage], advantage: float, scatter: float = 0.002) -> float:
    """A law from scratch, and one for growth that is lower by `advantage` at equal compute in this regime."""
    spent = sum(map(compute, lineage))
    wobble = 1 + scatter * math.sin(spent)
    if len(lineage) == 1:
        return wobble * (1.5 + 1.5 * (spent / 1e11) ** -0.2)
    base, grown = (stage.spec for stage in lineage)
    assert growth_factor(base.model, grown.model) > 1
    return wobble * (1.5 - advantage + 1.5 * (base.tokens / 1e6) ** -0.1 * (grown.tokens / 1e6) ** -0.1)


def advise(overrides: list[str], *more: str) -> Any:
    result = CliRunner().invoke(app, ["advise", *overrides, "--size", "254K", *more, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return checked("advise", result.stdout)


@pytest.fixture(scope="module")
def pilot(overrides: list[str]) -> Pilot:
    """Pilot runs of a question, planned and not trained."""
    first = advise(overrides, "--flops", f"{BUDGET:g}")
    found = pilot_of(overrides)
    assert not first["enough_data"]
    assert {stage["key"] for stage in first["pilot"]["stages"]} == {stage.key for stage, _ in found.left}
    return found


def test_too_few_runs_are_reported_with_the_stages_to_run(overrides: list[str], pilot: Pilot) -> None:
    told = CliRunner().invoke(
        app, ["advise", *overrides, "--size", "254K", "--flops", f"{BUDGET:g}"], catch_exceptions=False
    )
    assert "the law of growth from 147K needs runs of this recipe at 7 budgets, and has none" in told.output
    assert "% of the budget" in told.output
    assert "--size 254K --flops 1e+12 --run-missing" in told.output
    spent = sum(compute(stage) for stage, _ in pilot.left)
    assert spent < 0.8 * BUDGET


@pytest.mark.parametrize(("advantage", "decision"), [(0.3, "grow"), (-0.3, "from scratch")])
def test_planted_laws_decide(overrides: list[str], pilot: Pilot, advantage: float, decision: str) -> None:
    plant(lambda lineage: planted(lineage, advantage), pilot)
    found = advise(overrides, "--flops", f"{BUDGET:g}")
    assert (found["decision"], found["warning"]) == (decision, None)
    assert 1 < found["beyond"] <= 10
    for option in found["options"]:
        (loss,) = option["losses"]
        assert option["flops"] == pytest.approx(BUDGET)
        assert loss["low"] < expected(option, advantage) < loss["high"] < loss["low"] + 0.3
    grown = next(option for option in found["options"] if option["base"])
    cost = 1e11 * ((expected(grown, advantage) - 1.5) / 1.5) ** -5  # of the same loss from scratch
    assert found["saving"]["low"] < 1 - BUDGET / cost < found["saving"]["high"]


@pytest.mark.parametrize(("scatter", "decision"), [(0.001, "from scratch"), (0.01, "no difference")])
def test_a_difference_within_the_scatter_of_single_runs_decides_nothing(
    corpus: Path, tmp_path: Path, scatter: float, decision: str
) -> None:
    overrides = [*overrides_of(corpus, tmp_path), "launcher.device=cpu"]
    pilots = [pilot_of(overrides, share * BUDGET) for share in (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3)]
    plant(lambda lineage: planted(lineage, 0.15, scatter), *pilots)
    found = advise(overrides, "--flops", f"{BUDGET / 9:g}")
    assert found["decision"] == decision
    assert found["difference"]["median"] == pytest.approx(-0.02, abs=0.02)


def expected(option: dict[str, Any], advantage: float) -> float:
    if not option["base"]:
        return 1.5 + 1.5 * (BUDGET / 1e11) ** -0.2
    (tokens,) = option["tokens"]
    return 1.5 - advantage + 1.5 * (option["base_tokens"] / 1e6) ** -0.1 * (tokens / 1e6) ** -0.1


def test_far_outside_the_runs_the_answer_has_a_warning_and_wide_intervals(overrides: list[str], pilot: Pilot) -> None:
    plant(lambda lineage: planted(lineage, 0.3), pilot)
    extrapolates = advise(overrides, "--flops", f"{100 * BUDGET:g}")
    assert extrapolates["warning"].startswith("warning: this is ")
    assert extrapolates["decision"] == "no difference"
    assert all(loss["high"] > loss["low"] + 1 for option in extrapolates["options"] for loss in option["losses"])


def test_the_answer_and_the_residuals_of_the_laws_are_written(
    overrides: list[str], pilot: Pilot, tmp_path: Path
) -> None:
    plant(lambda lineage: planted(lineage, 0.3), pilot)
    found = advise(overrides, "--flops", f"{BUDGET:g}", "--out", str(tmp_path / "out"))
    names = [Path(path).name for path in found.pop("files")]
    assert names == ["advice.json", "residuals.png", "residuals.svg", "residuals.pdf"]
    assert json.loads((tmp_path / "out" / "advice.json").read_text()) == found
    drawn = (tmp_path / "out" / "residuals.svg").read_text()
    assert all(name["name"] in drawn for name in found["laws"])


def test_an_unusable_folder_is_reported_before_anything_is_trained(overrides: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = ["--flops", "1e9", "--run-missing", "--out", str(tmp_path / "file" / "out")]
    with pytest.raises(UserFault, match=r"--out .*file/out: "):
        CliRunner().invoke(app, ["advise", *overrides, *options], catch_exceptions=False)


def test_runs_of_another_recipe_and_diverged_ones_are_not_used(overrides: list[str], pilot: Pilot) -> None:
    plant(lambda lineage: planted(lineage, 0.3), pilot)
    assert not advise([*overrides, "optim.weight_decay=0.2"], "--flops", f"{BUDGET:g}")["enough_data"]
    plant(lambda lineage: math.nan if len(lineage) == 1 else 3.0, pilot)
    diverged = advise(overrides, "--flops", f"{BUDGET:g}")
    assert not diverged["enough_data"]
    assert len(diverged["unused"]) == sum(stage.spec.parent is None for stage, _ in pilot.left)


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (
            ["--flops", "1e9", "--hours", "2", "--size", "25K"],
            ["--size=25K: must be one of 70K, 147K, 254K", "budget=--flops --hours: must be given exactly once"],
        ),
        (["--dollars", "nan"], ["--dollars=nan: must be a finite number above 0"]),
        (["--dollars", "5"], ["--dollars: device.price must be set"]),
    ],
)
def test_faults_in_the_question_are_explained(overrides: list[str], options: list[str], messages: list[str]) -> None:
    with pytest.raises(UserFault) as fault:
        CliRunner().invoke(app, ["advise", *overrides, *options], catch_exceptions=False)
    assert len(fault.value.messages) == len(messages)
    for message, told in zip(messages, fault.value.messages, strict=True):
        assert told.startswith(message)
