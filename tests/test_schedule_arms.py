"""Tests of the arms that the files of conf/baseline plan, alone and together."""

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest

from tfscale.cli.common import Common
from tfscale.cli.compare import plan_with
from tfscale.config.compose import compose
from tfscale.config.folders import group_options
from tfscale.faults import UserFault
from tfscale.models.counts import flops, parameters
from tfscale.models.transformer import TransformerConfig
from tfscale.plan.arms import Arm, cumulative_flops
from tfscale.plan.plan import Plan, make_plan
from tfscale.plan.specs import compute_optimal

SCHEDULES = ["progressive_tiny", "progressive_1b4", "openwebtext2_757m"]
ALL = ",".join(name for name in group_options()["baseline"] if name != "none")


@cache
def plan_of(*overrides: str) -> Plan:
    return make_plan(compose(overrides))


@cache
def everything(schedule: str = "progressive_tiny") -> Plan:
    return plan_with(Common([f"schedule={schedule}", "growth=grouped"]), ALL)


def arms(*names: str, schedule: str = "progressive_tiny") -> list[Arm]:
    """Return the chain and the named arms."""
    every = {arm.name: arm for arm in everything(schedule).arms}
    return [every["progressive"], *(every[name] for name in names)]


def spent(arm: Arm, size: str) -> int:
    """Return the FLOPs of an arm's stage of this size, including all its ancestors."""
    stages = {stage.key: stage for stage in arm.stages}
    stage = next(stage for stage in reversed(arm.stages) if stage.size == size)
    total = 0
    while True:
        total += stage.spec.tokens * flops(stage.spec.model).training
        if stage.spec.parent is None:
            return total
        stage = stages[stage.spec.parent]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_any_arms_can_be_added_to_any_schedule_together(schedule: str) -> None:
    plan = everything(schedule)
    assert len({arm.name for arm in plan.arms}) == len(plan.arms)
    keys = {stage.key for stage in plan.stages}
    for stage in plan.stages:
        assert stage.spec.parent is None or stage.spec.parent in keys


def test_arms_added_together_are_those_added_alone() -> None:
    for baseline in ("scratch", "budgets"):
        for arm in plan_of(f"baseline={baseline}", "growth=grouped").arms:
            assert [arm] == [each for each in everything().arms if each.name == arm.name]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ["one_jump", "compute_optimal", "transformer_scratch", "tokenformer_scratch"])
def test_an_arm_has_spent_the_chains_compute_at_each_size(schedule: str, name: str) -> None:
    chain, arm = arms(name, schedule=schedule)
    for stage in arm.stages[1:]:
        target = next(each for each in chain.stages if each.size == stage.size)
        step = stage.spec.batch_tokens * flops(stage.spec.model).training
        assert abs(spent(arm, stage.size) - cumulative_flops(chain, target)) <= step


def test_one_jump_goes_from_the_base_to_each_size_by_the_chains_recipe() -> None:
    chain, arm = arms("one_jump")
    assert arm.stages[0] == chain.stages[0]
    assert arm.stages[1].key == chain.stages[1].key, "the jump to the second size equals the first growth"
    for stage, target in zip(arm.stages[2:], chain.stages[2:], strict=True):
        assert stage.spec.parent == chain.stages[0].key
        assert stage.spec.model.tokens == target.spec.model.tokens  # type: ignore[union-attr]
        assert len(stage.spec.model.qkv) == 2  # type: ignore[union-attr]
        assert stage.spec.growth == target.spec.growth


@pytest.mark.parametrize("budget", ["stage_tokens", "base_tokens"])
def test_both_families_from_scratch_on_the_tokens_of_the_stage_or_of_the_base(budget: str) -> None:
    chain, transformers, tokenformers = arms(f"transformer_{budget}", f"tokenformer_{budget}")
    base = chain.stages[0].spec.tokens
    for arm in (transformers, tokenformers):
        tokens = [stage.spec.tokens for stage in arm.stages]
        assert tokens == [base if budget == "base_tokens" else stage.spec.tokens for stage in chain.stages]
        assert all(stage.spec.parent is None for stage in arm.stages)
    assert tokenformers.stages[0] == chain.stages[0]


def test_other_budgets_share_the_base_and_nothing_else() -> None:
    chain, half, double = arms("progressive_half", "progressive_double", schedule="progressive_1b4")
    assert [round(stage.spec.tokens / 1e9) for stage in half.stages] == [300, 15, 15, 15]
    assert [round(stage.spec.tokens / 1e9) for stage in double.stages] == [300, 60, 60, 60]
    assert half.stages[0] == double.stages[0] == chain.stages[0]
    assert len({stage.key for arm in (chain, half, double) for stage in arm.stages}) == 10
    alone = plan_of("schedule=progressive_1b4", "schedule.growth_tokens=15B", "growth=grouped").chain
    assert [stage.key for stage in half.stages] == [stage.key for stage in alone.stages]


def test_another_recipe_beside_the_chains_own_is_the_chain_of_that_recipe() -> None:
    _, arm = arms("progressive_paper")
    alone = plan_of("growth=paper").chain
    assert [stage.key for stage in arm.stages] == [stage.key for stage in alone.stages]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_compute_optimal_model_is_trained_on_twenty_tokens_a_parameter(schedule: str) -> None:
    sizes_of = "baseline.arms.compute_optimal.sizes=all"
    chain, arm = plan_of(f"schedule={schedule}", "growth=grouped", "baseline=compute_optimal", sizes_of).arms
    for stage in arm.stages:
        assert stage.spec.tokens / parameters(stage.spec.model) == pytest.approx(20, rel=0.1)
    sizes = [parameters(stage.spec.model) for stage in arm.stages]
    assert sizes == sorted(sizes)
    assert len(sizes) == len(chain.stages)


def test_the_compute_optimal_shape_is_the_nearest_shape_widened() -> None:
    models = [TransformerConfig(2, 32, 2, 257, 64, 128), TransformerConfig(12, 768, 12, 50304, 1024, 2000)]

    def budget(model: TransformerConfig) -> int:
        return 20 * parameters(model) * flops(model).training

    for index, model in enumerate(models):
        assert compute_optimal(budget(model), models) == (index, model), "an optimal shape does not change"
    index, wider = compute_optimal(4 * budget(models[1]), models)
    assert (index, wider.n_layer, wider.n_head) == (1, 12, 12)
    assert wider.d_ff / wider.d_model == pytest.approx(2000 / 768, rel=1e-3)
    assert budget(wider) / budget(models[1]) == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("compute", [1, 10**9, 10**15, 10**24, 10**30])
def test_every_budget_has_a_compute_optimal_shape(compute: int) -> None:
    _, model = compute_optimal(compute, [TransformerConfig(2, 27, 1, 257, 64, 108)])
    assert math.isfinite(parameters(model))


def test_an_arm_has_a_learning_rate_of_its_own_if_it_is_given_one() -> None:
    experiment = everything().experiment
    given = {name: replace(part, lr=1e-4) for name, part in experiment.baseline.arms.items()}
    plan = make_plan(replace(experiment, baseline=replace(experiment.baseline, arms=given)))
    assert plan.chain == everything().chain
    for arm in plan.baselines:
        own = [stage for stage in arm.stages if stage.spec.parent is not None or arm.kind == "scratch"]
        assert {stage.spec.optimizer.lr for stage in own if stage not in plan.chain.stages} == {1e-4}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["baseline=[scratch,one_jmp]"], ["baseline=[scratch,one_jmp]: unknown baseline; did you mean one_jump"]),
        (["baseline=[]"], ["unknown baseline"]),
        (["baseline=scratch,one_jump"], ["must be a single value", "try baseline=[scratch,one_jump]"]),
        (["schedule=[progressive_tiny,progressive_1b4]"], ["unknown schedule"]),
        (["baseline=one_jump", "baseline.arms.one_jump.budget=stage_tokens"], ["=stage_tokens: must not be set"]),
        (["baseline=budgets", "baseline.arms.progressive_half.sizes=last"], ["sizes=last: must not be set"]),
        (["baseline=budgets", "baseline.arms.progressive_half.growth_tokens=0"], ["growth_tokens=0: must be a factor"]),
        (["baseline=transformer", "baseline.arms.transformer_scratch.lr=-1"], ["scratch.lr=-1: must be above 0"]),
        (["baseline=tokenformer", "baseline.arms.tokenformer_scratch.shape=compute_optimal"], ["family=transformer"]),
        (["baseline=one_jump", "+baseline.arms.progressive={kind: one_jump, title: x}"], ["must have another name"]),
        (
            ["baseline=compute_optimal", *(f"schedule.stages.stage{n}.transformer=null" for n in range(1, 5))],
            ["must have a Transformer at 254K"],
        ),
        (["baseline=paper", "schedule.stages.stage3.transformer=null"], ["must have a Transformer at 147K"]),
    ],
)  # fmt: skip
def test_what_an_arm_cannot_be_is_told(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(UserFault) as caught:
        plan_of(*overrides)
    for word in words:
        assert word in "\n".join(caught.value.messages)


def test_sizes_are_in_the_order_of_the_schedule() -> None:
    sizes = [stage.size for stage in everything().chain.stages]
    for arm in everything().arms:
        assert all(sizes.index(a.size) < sizes.index(b.size) for a, b in pairwise(arm.stages))
