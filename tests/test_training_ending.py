"""Tests of rules that end a stage, and of the chain that waits for it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stages import StopAt, elsewhere, outcome, planned, same, train
from typer.testing import CliRunner

from tfscale.cli.common import Common
from tfscale.cli.compare import compare
from tfscale.cli.main import app
from tfscale.cli.plan import plan as plan_verb
from tfscale.cli.store import pull_plan, store_of
from tfscale.cli.tune import Asked, tune
from tfscale.config.compose import compose
from tfscale.faults import UserFault
from tfscale.models.counts import flops
from tfscale.orchestrate.orchestrator import prepare_folder
from tfscale.plan.arms import Arm, cumulative_flops
from tfscale.plan.experiments import recorded
from tfscale.plan.plan import make_plan
from tfscale.stage.ending import end_of, gain_by_curve
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.result import read_result
from tfscale.stage.spec import StageSpec, key_of, read_spec
from tfscale.tracking.experiment_runs import StageRun
from tfscale.verify import verify_plan

WSD = ["optim.lr_schedule=wsd", "optim.decay_fraction=0.25", "optim.warmup=0"]
SOON = [*WSD, "schedule.grow_when.rule=plateau", "schedule.grow_when.eval_every=256", "schedule.grow_when.min_delta=9",
        "schedule.grow_when.patience=2"]  # fmt: skip
"""Settings that end a stage at its third evaluation, because it cannot gain nine nats within two evaluations."""


def falling(step: int) -> float:
    return 2.0 + 3.0 * step**-0.5


def base(small: list[str], *more: str) -> Stage:
    return planned([*small, *SOON, *more])[0]


def spec_with(stage: Stage, **changes: Any) -> StageSpec:
    assert stage.spec.ending is not None
    most = 100 * stage.spec.batch_tokens
    ending = {"every_tokens": 5 * stage.spec.batch_tokens, "most_tokens": most, **changes}
    return replace(stage.spec, tokens=most, ending=replace(stage.spec.ending, **ending))


def losses(spec: StageSpec, until: int = 100) -> dict[int, float]:
    return {step: falling(step) for step in range(1, until + 1)}


def test_a_plateau_ends_a_stage_at_the_first_look_that_gains_too_little(small: list[str]) -> None:
    spec = spec_with(base(small), rule="plateau", looks=2, least=0.05)
    first = next(step for step in range(15, 100, 5) if falling(step - 10) - falling(step) < 0.05)
    assert end_of(spec, losses(spec)) == math.ceil(first / 0.75)
    assert end_of(spec, losses(spec, first - 1)) is None
    assert end_of(spec, {**losses(spec), first + 5: -9.0}) == math.ceil(first / 0.75), (
        "what comes later changes nothing"
    )


def test_a_predicted_gain_ends_it_where_the_rest_of_the_budget_gains_too_little(small: list[str]) -> None:
    spec = spec_with(base(small), rule="predicted_gain", looks=4, least=0.1)
    first = next(step for step in range(20, 100, 5) if falling(step) - falling(100) < 0.1)
    assert end_of(spec, losses(spec)) in (math.ceil(first / 0.75), math.ceil((first + 5) / 0.75))


@pytest.mark.parametrize("exponent", [0.1, 0.5, 1.0, 1.5])
def test_the_fitted_curve_foresees_a_power_law(exponent: float) -> None:
    looks = [(tokens, 1.5 + 2.0 * tokens**-exponent) for tokens in range(10, 60, 5)]
    wanted = looks[-1][1] - (1.5 + 2.0 * 200**-exponent)
    assert gain_by_curve(looks, 200) == pytest.approx(wanted, rel=0.05)


def test_a_curve_that_rises_promises_nothing() -> None:
    assert gain_by_curve([(tokens, 2.0 + tokens / 100) for tokens in range(10, 60, 5)], 200) == 0


def test_without_a_rule_or_a_reason_a_stage_gets_its_budget(small: list[str]) -> None:
    stage = base(small)
    assert end_of(replace(stage.spec, ending=None), {}) == stage.spec.steps
    spec = spec_with(stage, rule="plateau", looks=2, least=1e-9)
    assert end_of(spec, {step: 9 - step for step in range(1, 101)}) == 100


def test_the_budgets_own_decay_is_not_taken_for_a_plateau(small: list[str]) -> None:
    spec = spec_with(base(small), rule="plateau", looks=1, least=0.5)
    assert end_of(spec, {step: 10.0 - step if step < 75 else 0.0 for step in range(1, 101)}) == 100


def test_looks_in_the_warm_up_do_not_count(small: list[str]) -> None:
    spec = spec_with(base(small), rule="plateau", looks=1, least=0.5)
    spec = replace(spec, lr_schedule=replace(spec.lr_schedule, warmup_tokens=40 * spec.batch_tokens))
    assert end_of(spec, dict.fromkeys(range(1, 101), 1.0)) == math.ceil(50 / 0.75)


def test_a_stage_ends_where_its_rule_says_with_its_rate_decayed(small: list[str]) -> None:
    stage = base(small)
    assert train(stage)
    done, events = read_result(stage.path), read_events(stage.path)
    looks = 3 * 256 // stage.spec.batch_tokens
    last = math.ceil(looks / 0.75)
    assert done.step == last < stage.spec.steps
    assert done.tokens == done.totals.tokens == last * stage.spec.batch_tokens
    assert done.totals.flops == done.tokens * flops(stage.spec.model).training
    [ending] = [event for event in events if event["event"] == "ending"]
    assert (ending["step"], ending["ends_at"]) == (looks, done.tokens)
    rates = [event["lr"] for event in events if event["event"] == "train"]
    assert max(rates[:-1]) == stage.spec.optimizer.lr
    assert rates[-1] < stage.spec.optimizer.lr
    assert (stage.path / "heldout.json").exists()


def test_with_a_constant_rate_it_ends_at_once(small: list[str]) -> None:
    stage = base(small, "optim.lr_schedule=constant")
    assert train(stage)
    assert read_result(stage.path).tokens == 3 * 256
    assert (stage.path / "heldout.json").exists()


@pytest.mark.parametrize("stops", [(3,), (6,), (7,), (2, 6, 7)])
def test_a_stage_that_was_stopped_ends_where_it_would_have(small: list[str], stops: tuple[int, ...]) -> None:
    stage = base(small)
    assert train(stage)
    stopped = elsewhere(stage, "stopped")
    for step in stops:
        assert not train(stopped, StopAt(step))
    assert train(stopped)
    assert same(outcome(stage), outcome(stopped))


def test_keys_of_a_chain_do_not_depend_on_what_is_decided(small: list[str]) -> None:
    overrides = [*small, *SOON]
    before = planned(overrides)
    assert train(before[0])
    after = planned(overrides)
    assert [stage.key for stage in before] == [stage.key for stage in after]
    assert before[1].spec.data.start != after[1].spec.data.start == after[0].spec.tokens
    assert before[0].spec.tokens > after[0].spec.tokens == read_result(after[0].path).tokens
    assert all(key_of(stage.spec) == stage.key for stage in after)
    assert after[-1].spec.ending is None, "no stage grows from the last one"


def test_tracking_takes_what_a_rule_decides_for_no_parameter(small: list[str]) -> None:
    overrides = [*small, *SOON]
    before = make_plan(compose(overrides)).chain
    planned(overrides)
    assert train(before.stages[0])
    after = make_plan(compose(overrides)).chain
    assert params(before) == params(after)
    assert "tokens" not in params(after)
    usual = make_plan(compose(small)).chain
    planned(small)
    assert train(usual.stages[0])
    assert "tokens" in params(usual)


def params(arm: Arm) -> dict[str, str]:
    contents = StageRun(arm, arm.stages[0], "").contents()
    assert contents is not None
    return contents.params


def test_rules_are_part_of_a_stages_key(small: list[str]) -> None:
    keys = {
        base(small, *more).key for more in ([], ["schedule.grow_when.min_delta=8"], ["schedule.grow_when.patience=3"])
    }
    assert len(keys) == 3
    assert planned([*small, *WSD])[0].key not in keys


def test_a_chain_is_decided_stage_by_stage_and_its_cost_is_the_baselines_budget(
    short: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*short, *SOON]
    assert plan_verb(Common([*overrides, "baseline=transformer"])) == 0
    assert "upper bounds" in " ".join(capsys.readouterr().out.split())
    assert compare(Common(overrides), "transformer", run_missing=True) == 0
    printed = capsys.readouterr().out
    assert "by the rule schedule.grow_when" in printed
    plan = make_plan(compose([*overrides, "baseline=transformer"]))
    assert all(is_done(stage) for stage in plan.stages)
    assert verify_plan(plan) == []
    chain, transformer = plan.chain, next(arm for arm in plan.arms if arm.name == "transformer_scratch")
    for target, beside in zip(chain.stages, transformer.stages, strict=True):
        done = read_result(target.path).totals
        assert done.flops == cumulative_flops(chain, target)
        step = beside.spec.batch_tokens * flops(beside.spec.model).training
        assert abs(read_result(beside.path).totals.flops - done.flops) <= step
    [experiment] = recorded(plan.runs)
    assert {stage.key for arm in experiment.arms for stage in arm.stages} == {stage.key for stage in plan.stages}


def test_a_chain_from_the_store_that_ended_early_sets_the_budgets_of_the_baselines(
    short: list[str], tmp_path: Path
) -> None:
    store = f"store={tmp_path / 'store'}"
    trained = CliRunner().invoke(app, ["run", *short, *SOON, store])
    assert trained.exit_code == 0, trained.output
    there = [*short, *SOON, store, "baseline=transformer", f"runs={tmp_path / 'there'}"]
    first = make_plan(compose(there))
    pulled = pull_plan(first, store_of(first.experiment))
    assert all(is_done(stage) for stage in pulled.chain.stages)
    assert pulled == make_plan(compose(there))
    assert pulled != first


def test_a_stage_that_ended_elsewhere_than_its_rule_says_is_found_out(small: list[str]) -> None:
    overrides = [*small, *SOON]
    stage = planned(overrides)[0]
    assert train(stage)
    metrics = stage.path / "metrics.jsonl"
    lines = [line for line in metrics.read_text().splitlines() if not ('"eval"' in line and '"step": 4' in line)]
    metrics.write_text("\n".join(lines) + "\n")
    assert any("but stage.yaml says" in finding for finding in verify_plan(make_plan(compose(overrides))))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optim.lr_schedule=cosine", "try optim.lr_schedule=wsd or constant"),
        ("schedule.grow_when.eval_every=-1", "schedule.grow_when.eval_every"),
        ("schedule.grow_when.min_delta=0", "schedule.grow_when.min_delta=0"),
        ("schedule.grow_when.patience=0", "schedule.grow_when.patience=0: must be at least 1"),
        ("schedule.grow_when.rule=bored", "budget"),
    ],
)
def test_rules_that_mean_nothing_are_told(override: str, says: str) -> None:
    with pytest.raises(UserFault, match=says.replace("(", r"\(")):
        make_plan(compose([*SOON, override]))


def test_rates_are_not_tuned_at_budgets_that_they_decide(small: list[str], tmp_path: Path) -> None:
    asked = Asked(("progressive",), "0.5,1,2", 0, 1, None)
    with pytest.raises(UserFault, match="must be budget, because rates are compared at equal budgets"):
        tune(Common([*small, *SOON]), asked)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("edited", "says"),
    [
        ({"looks": 0}, "ending.looks=0"),
        ({"every_tokens": 100}, "ending.every_tokens=100: must be a multiple of batch_tokens=128"),
        ({"most_tokens": 1024}, "must be at most ending.most_tokens=1024"),
        ({"least": 0.0}, "ending.least=0.0"),
    ],
)
def test_a_stage_that_was_edited_to_end_nowhere_is_refused(small: list[str], edited: dict[str, Any], says: str) -> None:
    stage = base(small)
    prepare_folder(stage)
    file = stage.path / "stage.yaml"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "ending": {**values["ending"], **edited}}))
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        read_spec(stage.path)
