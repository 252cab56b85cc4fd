"""Trunks with branches: what is planned, at which rates it is trained, and what comes of it."""

from dataclasses import replace
from functools import cache

import pytest
from stages import StopAt, elsewhere, outcome, same, train

from tfscale.cli.common import Common
from tfscale.cli.compare import compare
from tfscale.cli.run import chain_table
from tfscale.cli.status import status
from tfscale.cli.tune import Asked, tune
from tfscale.config.compose import compose
from tfscale.data.prepare import prepare
from tfscale.faults import UserFault
from tfscale.models.counts import flops
from tfscale.plan.arms import Arm, cumulative_flops
from tfscale.plan.branches import trunk_tokens
from tfscale.plan.experiments import record, recorded
from tfscale.plan.plan import Plan, make_plan
from tfscale.plan.specs import Specs
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.learning_rate import learning_rate
from tfscale.stage.result import read_result
from tfscale.stage.spec import RateSpec
from tfscale.verify import verify_plan

BRANCHES = ["optim.lr_schedule=constant", "growth=grouped", "growth.lr=continue", "schedule.trained_on_lr=null",
            "+schedule.branches={fraction: 0.25}", "schedule.stages.stage2.lr=null"]  # fmt: skip
SOON = ["schedule.grow_when.rule=plateau", "schedule.grow_when.eval_every=256", "schedule.grow_when.min_delta=9",
        "schedule.grow_when.patience=2"]  # fmt: skip


@cache
def plan_of(*overrides: str) -> Plan:
    return make_plan(compose(["schedule=progressive_tiny_trunk", *overrides]))


def prepared(overrides: list[str]) -> Plan:
    plan = make_plan(compose(overrides))
    prepare(plan.corpus.spec, plan.runs / "data")
    return plan


def rates(stage: Stage) -> list[float]:
    spec = stage.spec
    return [
        learning_rate(spec.lr_schedule, spec.optimizer.lr, step * spec.batch_tokens, spec.tokens)
        for step in range(spec.steps)
    ]


def test_a_trunk_is_warmed_up_once_and_its_branches_fall_to_zero() -> None:
    chain = plan_of().chain
    first, *later = chain.trunk
    warmed = first.spec.lr_schedule.warmup_tokens // first.spec.batch_tokens + 1
    rate = first.spec.optimizer.lr
    assert rates(first)[0] == 0
    assert set(rates(first)[warmed:]) == {rate}
    assert all(set(rates(stage)) == {rate} for stage in later)
    for branch in chain.stages:
        falling = rates(branch)
        steps = [before - after for before, after in zip(falling, [*falling[1:], 0.0], strict=True)]
        assert falling[0] == rate
        assert steps == pytest.approx([rate / branch.spec.steps] * branch.spec.steps)


def test_branches_and_later_stages_both_continue_the_trunk() -> None:
    chain = plan_of().chain
    for trunk, branch in zip(chain.trunk, chain.stages, strict=True):
        end = trunk.spec.data.start + trunk.spec.tokens
        children = [stage for stage in chain.all_stages if stage.spec.parent == trunk.key]
        assert branch in children
        assert {stage.spec.data.start for stage in children} == {end}
        assert branch.spec.model == trunk.spec.model
        assert branch.spec.tokens == pytest.approx(0.2 * trunk.spec.tokens, abs=branch.spec.batch_tokens)
        assert branch.size == trunk.size
    for parent, child in zip(chain.trunk, chain.trunk[1:], strict=False):
        assert child.spec.parent == parent.key


@pytest.mark.parametrize("readings", ["own", "all"])
def test_arms_have_the_chains_cumulative_compute_with_its_branch(readings: str) -> None:
    plan = plan_of("baseline=[scratch,one_jump,net2net,compute_optimal]", f"schedule.branches.readings={readings}")
    budgets = {stage.size: cumulative_flops(plan.chain, stage) for stage in plan.chain.stages}
    for arm in plan.baselines:
        for stage in arm.stages:
            step = stage.spec.batch_tokens * flops(stage.spec.model).training
            assert abs(cumulative_flops(arm, stage) - budgets[stage.size]) <= step, (arm.name, stage.size)
    keys = [stage.key for stage in plan.stages]
    assert len(set(keys)) == len(keys)
    for number, stage in enumerate(plan.stages):
        assert stage.spec.parent is None or stage.spec.parent in keys[:number], "parents come first"


def test_all_readings_are_branches_of_one_trunk_per_size_at_every_budget() -> None:
    plan = plan_of("baseline=scratch", "schedule.branches.readings=all")
    budgets = sorted(cumulative_flops(plan.chain, stage) for stage in plan.chain.stages)
    for arm in plan.baselines[:2]:
        for own in arm.stages:
            ends = sorted(cumulative_flops(arm, each) for each in (*arm.readings, *arm.stages) if each.size == own.size)
            step = own.spec.batch_tokens * flops(own.spec.model).training
            assert all(abs(end - budget) <= step for end, budget in zip(ends, budgets, strict=True))
            trunk = [each for each in arm.trunk if each.size == own.size]
            assert len(trunk) == len(budgets)
            assert sum(each.spec.parent is None for each in trunk) == 1
            assert len({rate for each in trunk[1:] for rate in rates(each)}) == 1
    tokenformers = next(arm for arm in plan.baselines if arm.name == "tokenformer_scratch")
    assert (tokenformers.trunk[0], tokenformers.stages[0]) == (plan.chain.trunk[0], plan.chain.stages[0])


def test_smaller_readings_are_branches_at_halved_budgets_and_leave_the_base_of_the_chain_as_it_is() -> None:
    overrides = ["baseline=scratch", "schedule.branches.readings=all"]
    before, plan = plan_of(*overrides), plan_of(*overrides, "schedule.branches.smaller_readings=2")
    assert plan.chain.all_stages == before.chain.all_stages
    smallest = cumulative_flops(plan.chain, plan.chain.stages[0])
    for arm, former in zip(plan.baselines[:2], before.baselines[:2], strict=True):
        for own, whole in zip(arm.stages, former.stages, strict=True):
            assert cumulative_flops(arm, own) == cumulative_flops(former, whole)
            ends = sorted(cumulative_flops(arm, each) for each in (*arm.readings, *arm.stages) if each.size == own.size)
            if (arm.name, own.size) == ("tokenformer_scratch", "25K"):
                assert len(ends) == 4
                continue
            step = own.spec.batch_tokens * flops(own.spec.model).training
            assert len(ends) == 6
            assert abs(ends[0] - smallest / 4) <= step
            assert abs(ends[1] - smallest / 2) <= step


def test_budgets_of_less_than_a_step_are_refused() -> None:
    overrides = ["baseline=scratch", "schedule.branches.readings=all", "optim.batch_tokens=262144"]
    with pytest.raises(UserFault, match=r"schedule\.branches\.smaller_readings=9: must leave at least one step"):
        plan_of(*overrides, "schedule.branches.smaller_readings=9")


@pytest.mark.parametrize("tokens", [1, 512, 1024, 6 * 512, 13 * 512, 10**6])
def test_a_trunk_and_its_branch_have_the_tokens_of_the_run_in_whole_steps(tokens: int) -> None:
    plan = plan_of()
    trunk = trunk_tokens(tokens, Specs(plan.experiment, plan.corpus))
    assert trunk % 512 == 0
    assert trunk >= 512
    branch = max(512, round(0.2 * trunk / 512) * 512)
    assert abs(trunk + branch - max(1024, tokens)) <= 512


def test_new_rows_keep_their_rate_in_a_branch_and_old_ones_the_rate_that_they_have_reached() -> None:
    plan = plan_of("growth.rates={new: 3, old: 0.1, old_ramp: 0.5, frozen: 0.1}")
    first, grown = plan.chain.stages[0], plan.chain.stages[1]
    assert first.spec.rates is None
    assert grown.spec.rates == RateSpec((16, 16, 64), 1.0, 0, 0, 3.0, False, False)
    rewarmed = plan_of("growth=rewarmed").chain
    ramps = [stage.spec.rates.new_ramp_tokens for stage in rewarmed.trunk if stage.spec.rates is not None]
    assert len(ramps) == len(rewarmed.trunk) - 1
    assert all(ramp * 2 < stage.spec.tokens for ramp, stage in zip(ramps, rewarmed.trunk[1:], strict=True))
    assert all(stage.spec.rates is None for stage in rewarmed.stages), "the ramp is over before a branch"


def test_a_transformer_grows_in_depth_along_a_trunk_at_one_rate() -> None:
    later = "schedule.stages.stage3.transformer.lr=0.02"
    plan = plan_of("baseline=depth_growth", later)
    [arm] = plan.baselines
    assert [stage.size for stage in arm.trunk] == [stage.size for stage in plan.chain.trunk]
    assert {rate for stage in arm.trunk[1:] for rate in rates(stage)} == {arm.trunk[0].spec.optimizer.lr}
    layers = [stage.spec.model.n_layer for stage in arm.trunk]
    assert layers == sorted(set(layers))
    assert len({stage.spec.model.d_model for stage in arm.trunk}) == 1
    for own, chains in zip(arm.stages, plan.chain.stages, strict=True):
        step = own.spec.batch_tokens * flops(own.spec.model).training
        assert abs(cumulative_flops(arm, own) - cumulative_flops(plan.chain, chains)) <= step


def test_four_growths_by_two_take_the_compute_of_three_by_the_papers_factors() -> None:
    spent = []
    for schedule in ("progressive_tiny_trunk", "progressive_tiny_doubling"):
        chain = make_plan(compose([f"schedule={schedule}"])).chain
        spent.append(cumulative_flops(chain, chain.stages[-1]))
    assert spent[1] == pytest.approx(spent[0], rel=1e-3)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optim.lr_schedule=cosine", "optim.lr_schedule=cosine: must be constant with schedule.branches"),
        ("growth.lr=rewarm", "growth.lr=rewarm: must be continue with schedule.branches"),
        ("schedule.stages.stage3.lr=1e-3", "schedule.stages.stage3.lr=0.001: must be null"),
        ("schedule.trained_on_lr=1e-3", "schedule.trained_on_lr=0.001: must be null"),
        ("init_from=imported", "init_from='imported': must be null with schedule.branches"),
        ("schedule.branches.fraction=1", "schedule.branches.fraction=1: must be a fraction, above 0 and below 1"),
        ("schedule.branches.readings=some", "schedule.branches.readings"),
        ("schedule.branches.smaller_readings=1", "schedule.branches.readings=own: must be all with"),
        (
            "schedule.branches.smaller_readings=-1",
            "schedule.branches.smaller_readings=-1: must be a number of halvings",
        ),
    ],
)
def test_settings_that_would_change_the_trunks_rate_are_told(override: str, says: str) -> None:
    with pytest.raises(UserFault, match=says):
        plan_of(override)


def test_a_trunk_is_tuned_whole(short: list[str]) -> None:
    with pytest.raises(UserFault, match=r"--rungs=2: must be 1 with schedule\.branches"):
        tune(Common([*short, *BRANCHES]), Asked(("progressive",), "0.5,1,2", 0, 1, None, rungs=2))


def test_a_chain_is_trained_compared_and_shown(short: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [*short, *BRANCHES, "schedule.branches.readings=all", "baseline.arms.transformer_scratch.sizes=last"]
    plan = prepared([*overrides, "baseline=transformer"])
    trunk, small, grown, large = plan.chain.all_stages
    for stage in plan.stages:
        assert train(stage)
    for stage in plan.stages:
        arm = next(arm for arm in plan.arms if stage in arm.all_stages)
        assert read_result(stage.path).totals.flops == cumulative_flops(arm, stage)
    assert verify_plan(plan) == []
    assert _trained_at(trunk)[-1] == _trained_at(small)[0] == _trained_at(grown)[0] == trunk.spec.optimizer.lr
    assert 0 < _trained_at(large)[-1] == pytest.approx(large.spec.optimizer.lr / large.spec.steps)
    ends = [[e["loss"] for e in read_events(stage.path) if e["event"] == "eval"] for stage in (trunk, small)]
    assert ends[0][-1] == pytest.approx(ends[1][0], abs=1e-6), "a branch starts with the model of its trunk"
    assert compare(Common(overrides), "transformer") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "unfinished" not in printed
    assert status(Common([*overrides, "baseline=transformer"])) == 0
    shown = capsys.readouterr().out
    assert "25K trunk" in shown
    assert "70K reading" in shown
    assert chain_table(plan) is not None
    [experiment] = recorded(plan.runs)
    assert {stage.key for arm in experiment.arms for stage in arm.all_stages} == {stage.key for stage in plan.stages}


def _trained_at(stage: Stage) -> list[float]:
    return [event["lr"] for event in read_events(stage.path) if event["event"] == "train"]


def test_a_branch_that_was_stopped_ends_as_it_would_have(short: list[str]) -> None:
    plan = prepared([*short, *BRANCHES])
    trunk, branch = plan.chain.all_stages[:2]
    assert train(trunk)
    assert train(branch)
    stopped = elsewhere(branch, "stopped")
    assert not train(stopped, StopAt(2))
    assert train(stopped)
    assert same(outcome(branch), outcome(stopped))


def test_a_rule_reads_the_trunk_and_branches_follow_what_it_decides(short: list[str]) -> None:
    overrides = [*short, *BRANCHES, *SOON]
    before = prepared(overrides)
    assert before.decided == before.chain.trunk[:1]
    record(before.known)
    assert train(before.chain.trunk[0])
    after = prepared(overrides)
    assert after.decided == after.stages
    assert [stage.key for stage in after.chain.trunk] == [stage.key for stage in before.chain.trunk]
    trunk, branch = after.chain.trunk[0], after.chain.stages[0]
    assert trunk.spec.tokens == read_result(trunk.path).tokens == 3 * 256
    assert branch.spec.tokens == 256
    assert branch.spec.ending is None
    assert branch.key != before.chain.stages[0].key
    assert train(branch)
    record(after.known)
    [experiment] = recorded(after.runs)
    assert [arm.name for arm in experiment.arms] == ["progressive"]
    assert experiment.arms[0] == after.chain
    assert is_done(after.chain.stages[0])


def test_several_seeds_have_a_trunk_each() -> None:
    arm = plan_of("seeds=2").arms[0]
    assert arm.seeds == (0, 1)
    first, second = arm.by_seed()
    assert isinstance(second, Arm)
    keys = [{stage.key for stage in each.all_stages} for each in (first, second, arm)]
    assert keys[0] | keys[1] == keys[2]
    assert not keys[0] & keys[1]
    assert replace(first, name="x").key == plan_of().chain.key
