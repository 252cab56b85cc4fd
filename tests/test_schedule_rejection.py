"""Growths on trial: what is rejected, what follows from it, what it costs, and where it is shown."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace

import pytest
from stages import StopAt, elsewhere, outcome, same, train

from tfscale.analysis.caption import caption
from tfscale.analysis.comparison import compare_arms
from tfscale.analysis.curves import Cost, read_arms
from tfscale.analysis.family import family_cost
from tfscale.analysis.figure import comparison_figure
from tfscale.analysis.growths import growths
from tfscale.cli.common import Common
from tfscale.cli.execute import run_plan
from tfscale.cli.plan import plan as plan_verb
from tfscale.cli.status import status
from tfscale.cli.tune import Asked, tune
from tfscale.config.compose import compose
from tfscale.data.prepare import prepare
from tfscale.faults import UserFault
from tfscale.models.counts import flops
from tfscale.plan.arms import cumulative_flops
from tfscale.plan.experiments import record, recorded
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.ending import end_of, parent_loss
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.result import read_result
from tfscale.stage.spec import EndingSpec, key_of
from tfscale.verify import verify_plan

NEVER = ["schedule.reject_growth.after_tokens=256", "schedule.reject_growth.bound=-9"]
"""A bound that no growth meets."""
ALWAYS = [NEVER[0], "schedule.reject_growth.bound=9"]
NOISY = ["growth=grouped", "growth.noise=1"]
BRANCHES = ["optim.lr_schedule=constant", "growth=grouped", "growth.lr=continue", "schedule.trained_on_lr=null",
            "+schedule.branches={fraction: 0.25}", "schedule.stages.stage2.lr=null"]  # fmt: skip


def planned(overrides: list[str]) -> Plan:
    return make_plan(compose(overrides))


def begun(overrides: list[str]) -> Plan:
    """Train the chain up to the end of its trial, and plan again."""
    plan = planned(overrides)
    prepare(plan.corpus.spec, plan.runs / "data")
    for stage in plan.decided:
        assert train(stage)
    return planned(overrides)


def finish(plan: Plan) -> None:
    for stage in plan.stages:
        assert is_done(stage) or train(stage)


def growth_of(overrides: list[str]) -> Stage:
    return planned(overrides).chain.stages[1]


def test_a_loss_above_the_bound_rejects_a_growth_and_one_at_the_bound_does_not(short: list[str]) -> None:
    spec = growth_of([*short, *NEVER]).spec
    assert spec.trial is not None
    spec = replace(spec, trial=replace(spec.trial, bound=0.5))
    assert end_of(spec, {1: 9.0, 2: 3.5}, before=3.0) == spec.steps
    assert end_of(spec, {1: 1.0, 2: 3.6, 3: 1.0}, before=3.0) == 2
    assert end_of(spec, {2: math.nan}, before=3.0) == 2
    assert end_of(spec, {1: 9.0}, before=3.0) == spec.steps, "nothing is decided yet"


def test_a_rule_ends_a_stage_only_after_the_trial(short: list[str]) -> None:
    spec = growth_of([*short, *NEVER]).spec
    spec = replace(spec, lr_schedule=replace(spec.lr_schedule, kind="constant", warmup_tokens=0))
    assert spec.trial is not None
    ruled = replace(
        spec, trial=replace(spec.trial, bound=0.5), ending=EndingSpec("plateau", 128, 9.0, 1, spec.trial.most_tokens)
    )
    flat = dict.fromkeys(range(1, 9), 3.0)
    assert end_of(replace(ruled, trial=None), flat) == 2
    assert end_of(ruled, flat, before=3.0) == 4
    assert end_of(ruled, {**flat, 2: 4.0}, before=3.0) == 2


def test_a_growth_that_is_kept_is_the_one_without_a_trial(short: list[str]) -> None:
    plan = begun([*short, *ALWAYS])
    without = planned(short).chain.stages[1]
    assert train(without)
    [grown] = plan.chain.stages[1:]
    assert plan.chain.detours == ()
    assert grown.key != without.key
    assert read_result(grown.path).tokens == read_result(without.path).tokens == 1024
    ours, theirs = outcome(grown), outcome(without)
    assert same((ours[0], ours[2]), (theirs[0], theirs[2]))
    assert verify_plan(plan) == []


def in_process(plan: Plan, stages: Sequence[Stage], *others: object) -> int:
    for stage in stages:
        assert is_done(stage) or train(stage)
    return 0


def test_after_a_rejected_growth_the_parent_is_trained_on_and_grows_again(
    short: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfscale.cli.execute.train", in_process)
    chosen = [*short, *NEVER, *NOISY]
    overrides = [*chosen, "baseline=transformer"]
    before = planned(chosen)
    assert before.decided == before.chain.stages
    code, after = run_plan(before)
    assert code == 0
    plan = planned(overrides)
    assert after.chain == plan.chain
    base, rejected, back, again = plan.chain.all_stages
    assert plan.chain.stages == (base, again)
    assert [plan.chain.label(stage) for stage in plan.chain.all_stages] == [
        "25K",
        "70K rejected",
        "25K continued",
        "70K",
    ]
    assert rejected.spec.tokens == read_result(rejected.path).tokens == 256
    assert (again.spec.trial, again.spec.tokens, again.spec.parent) == (None, 1024, back.key)
    assert all(key_of(stage.spec) == stage.key for stage in plan.stages)
    assert plan_verb(Common(overrides)) == status(Common(overrides)) == 0
    assert "the growth to 70K was rejected, because after 256 tokens" in " ".join(capsys.readouterr().out.split())

    stopped = elsewhere(back, "stopped")
    assert not train(stopped, StopAt(3))
    assert train(stopped)
    finish(plan)
    assert same(outcome(back), outcome(stopped))
    shutil.rmtree(stopped.path)
    assert verify_plan(plan) == []
    first = next(event["loss"] for event in read_events(back.path) if event["event"] == "eval")
    assert first == pytest.approx(read_result(base.path).evaluation.loss, abs=1e-6), "the parent goes on where it ended"
    assert back.spec.data.start == base.spec.tokens
    assert again.spec.data.start == base.spec.tokens + 1024

    for stage in (base, rejected, back, again):
        assert read_result(stage.path).totals.flops == cumulative_flops(plan.chain, stage)
    wasted = 256 * flops(rejected.spec.model).training
    assert cumulative_flops(plan.chain, again) == wasted + sum(
        stage.spec.tokens * flops(stage.spec.model).training for stage in (base, back, again)
    )
    transformer = plan.baselines[0].stages[-1]
    step = transformer.spec.batch_tokens * flops(transformer.spec.model).training
    assert abs(cumulative_flops(plan.baselines[0], transformer) - cumulative_flops(plan.chain, again)) <= step

    [chain] = read_arms([plan.chain])
    spent = [Cost.of_totals(read_result(stage.path).totals) for stage in plan.chain.stages]
    assert chain.stages[1].marginal == spent[1] - spent[0]
    assert chain.stages[1].cumulative == spent[1]
    step_size = chain.stages[1].step_size
    assert step_size is not None
    assert step_size.flops == again.spec.batch_tokens * flops(again.spec.model).training, "without the rejected growth"
    family = family_cost(chain, chain, chain.sizes, "flops")
    assert family is not None
    assert family.shown == pytest.approx(spent[1].flops)
    [growth] = growths(chain)
    assert (growth.key, growth.parent) == (again.key, back.key)

    record(plan)
    [experiment] = recorded(plan.runs)
    assert experiment.arms[0] == plan.chain
    assert experiment.arms[0].key == before.chain.key
    comparison = compare_arms(experiment.joined, "rejected")
    assert any("A growth to 70K was rejected" in sentence for sentence in caption(comparison.arms))
    [row] = [row for row in comparison.table.of_size("70K") if row.arm == plan.chain.name]
    assert {rejected.key, back.key} <= set(row.rests_on)
    lines = comparison_figure(comparison.arms, "rejected").axes[0].lines
    assert sum(line.get_linestyle() == ":" for line in lines) == 2


def test_a_trial_that_was_stopped_is_decided_as_it_would_have_been(short: list[str]) -> None:
    plan = planned([*short, *NEVER])
    prepare(plan.corpus.spec, plan.runs / "data")
    base, grown = plan.decided
    assert train(base)
    stopped = elsewhere(grown, "stopped")
    assert not train(stopped, StopAt(2))
    assert train(grown)
    assert train(stopped)
    assert read_result(stopped.path).tokens == 256
    assert same(outcome(grown), outcome(stopped))


def test_a_trial_reads_the_trunk_and_the_trunk_goes_on_at_its_rate(short: list[str]) -> None:
    plan = begun([*short, *BRANCHES, *NEVER])
    trunk, small, rejected, back, again, large = plan.chain.all_stages
    assert (plan.chain.trunk, plan.chain.stages) == ((trunk, again), (small, large))
    assert parent_loss(rejected.spec, rejected.path) == read_result(trunk.path).evaluation.loss
    finish(plan)
    assert verify_plan(plan) == []
    trained = [event["lr"] for event in read_events(back.path) if event["event"] == "train"]
    assert set(trained) == {trunk.spec.optimizer.lr}
    [chain] = read_arms([plan.chain])
    assert [part.key for part in chain.stages[1].stages] == [rejected.key, back.key, again.key, large.key]
    assert read_result(large.path).totals.flops == cumulative_flops(plan.chain, large)


def test_seeds_decide_for_themselves_and_by_the_recorded_losses(
    short: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*short, *NEVER, "seeds=2"]
    plan = planned(overrides)
    prepare(plan.corpus.spec, plan.runs / "data")
    for stage in plan.replicates[0].decided:
        assert train(stage)
    chain = planned(overrides).arms[0]
    assert [len(chain.of_seed(seed).detours) for seed in (0, 1)] == [2, 0]
    assert plan_verb(Common(overrides)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "the growth to 70K of seed 0 was rejected" in shown
    assert "1 of 2 done" in shown
    metrics = chain.detours[0].path / "metrics.jsonl"
    events = [json.loads(line) for line in metrics.read_text().splitlines()]
    edited = [{**event, "loss": -99.0} if event["event"] == "eval" else event for event in events]
    metrics.write_text("".join(json.dumps(event) + "\n" for event in edited))
    assert any("tokens is 256, but stage.yaml says 1024" in finding for finding in verify_plan(planned(overrides)))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "schedule.reject_growth.after_tokens=1024",
            "schedule.reject_growth.after_tokens=1024: must be from one batch",
        ),
        ("schedule.reject_growth.after_tokens=0", "schedule.reject_growth.after_tokens=0: must be from one batch"),
        ("schedule.reject_growth.bound=10", "schedule.reject_growth.bound=10: must be nats of loss"),
    ],
)
def test_trials_that_mean_nothing_are_told(short: list[str], override: str, says: str) -> None:
    with pytest.raises(UserFault, match=says):
        planned([*short, *NEVER, override])


def test_rates_are_not_tuned_with_a_trial(short: list[str]) -> None:
    with pytest.raises(UserFault, match=r"schedule\.reject_growth: must be null"):
        tune(Common([*short, *NEVER]), Asked(("progressive",), "0.5,1,2", 0, 1, None))
