"""Tests of replicates: planning, running, display and comparison with `seeds=`."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from stages import train

from tfscale.cli.common import Common
from tfscale.cli.compare import compare_plan
from tfscale.cli.console import console
from tfscale.cli.dashboard import name_of
from tfscale.cli.plan import plan as plan_verb
from tfscale.cli.run import chain_table
from tfscale.cli.status import status
from tfscale.config.compose import compose
from tfscale.data.prepare import prepare
from tfscale.faults import UserFault
from tfscale.plan.plan import Plan, make_plan
from tfscale.plan.rehearsal import rehearsal
from tfscale.predict import families, planned_machine, predict
from tfscale.text import duration
from tfscale.verify import verify_plan


def plan_of(*overrides: str) -> Plan:
    return make_plan(compose(overrides))


def keys(plan: Plan) -> list[str]:
    return [stage.key for stage in plan.stages]


def test_replicates_are_the_plans_of_the_next_seeds_and_orders() -> None:
    several = plan_of("baseline=scratch", "seeds=3", "seed=5")
    alone = [plan_of("baseline=scratch", f"seed={5 + n}", f"data.shuffle_seed={n}") for n in range(3)]
    assert keys(several) == [key for plan in alone for key in keys(plan)]
    assert len(set(keys(several))) == 3 * len(keys(alone[0]))


def test_an_arm_holds_the_stages_of_all_its_seeds_each_with_parents_of_its_own() -> None:
    plan = plan_of("baseline=scratch", "seeds=2")
    for arm, first in zip(plan.arms, plan.replicates[0].arms, strict=True):
        assert arm.seeds == (0, 1)
        assert arm.of_seed(0) == first
        assert [stage.size for stage in arm.of_seed(1).stages] == [stage.size for stage in first.stages]
    seeds = {stage.key: stage.spec.seed for stage in plan.stages}
    for stage in plan.stages:
        assert stage.spec.parent is None or seeds[stage.spec.parent] == stage.spec.seed
        assert stage.spec.data.order_seed == stage.spec.seed


def test_parents_come_before_children_and_a_seeds_comparison_before_the_next() -> None:
    plan = plan_of("baseline=scratch", "seeds=2")
    seen: set[str] = set()
    for stage in plan.stages:
        assert stage.spec.parent in seen | {None}
        seen.add(stage.key)
    seeds = [stage.spec.seed for stage in plan.stages]
    assert seeds == sorted(seeds)


@pytest.mark.parametrize("count", [0, -1, 10**7])
def test_an_impossible_number_of_seeds_is_told(count: int) -> None:
    with pytest.raises(UserFault, match=f"seeds={count}: must be from 1 to 1000"):
        plan_of(f"seeds={count}")


def test_a_plan_shows_each_arm_once_and_what_all_seeds_cost(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    overrides = [f"runs={tmp_path}", "schedule=progressive_1b4", "device=h100_sxm", "launcher=slurm", "tracking=none"]
    assert plan_verb(Common([*overrides, "seeds=3"])) == 0
    printed = capsys.readouterr().out
    assert printed.count("progressive (") == 1
    assert "x 3 seeds" in printed
    plan = plan_of(*overrides, "seeds=3")
    machine = planned_machine(plan.experiment)
    totals = families(plan, lambda spec: predict(spec, machine, []))
    assert totals[-1].flops == 3 * totals[0].flops
    assert totals[-1].seconds is not None
    assert f"this plan, 3 seeds  {len(plan.stages)} stages" in printed
    assert duration(totals[-1].seconds) in printed


def test_a_rehearsal_has_one_seed() -> None:
    assert rehearsal(compose(["seeds=3"])).seeds == 1


def test_the_replicates_of_an_arm_have_names_of_their_own() -> None:
    plan = plan_of("seeds=2")
    first, second = plan.arms[0].by_seed()
    assert first == plan.chain
    assert (second.name, second.stages) == ("progressive seed 1", plan.replicates[1].chain.stages)


def test_the_state_of_every_seed_is_shown(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [*small, "seeds=2", "baseline=trained_on"]
    assert status(Common(overrides)) == 0
    plan = plan_of(*overrides)
    printed = capsys.readouterr().out
    assert printed.count("seed ") == len(plan.arms), "a column in each arm's table"
    assert all(stage.path.name in printed for stage in plan.stages)
    assert name_of(plan, plan.replicates[1].chain.stages[0]) == "progressive 25K seed 1"


def test_seeds_are_trained_verified_and_compared(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    experiment = compose([*small, "seeds=2", "baseline=trained_on"])
    stages = dict(list(experiment.schedule.stages.items())[:2])
    plan = make_plan(replace(experiment, schedule=replace(experiment.schedule, stages=stages)))
    prepare(plan.corpus.spec, plan.runs / "data")
    assert all(train(stage) for stage in plan.stages)
    assert verify_plan(plan) == []
    capsys.readouterr()
    console.print(chain_table(plan))
    first, second = [line for line in capsys.readouterr().out.splitlines() if re.match(r"\d+K ", line)]
    assert " ± " in first
    assert " ± " in second
    assert re.search(r" - ", first), "a first stage has no loss at growth"
    assert " → " in second
    compared = compare_plan(plan).table
    assert capsys.readouterr().out == "", "nothing is missing"
    assert {row.seeds for row in compared.rows} == {(0, 1)}
    assert {row.equal_perplexity.over[0] for row in compared.rows if row.equal_perplexity} == {"seeds"}
    assert all(row.perplexity_interval for row in compared.rows)
