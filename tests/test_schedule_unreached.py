"""Tests of finished stages that are no longer part of a plan, and of the settings that differ."""

import json
from pathlib import Path

from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.cli.why import unreached_line, unreached_words
from tfscale.config.compose import compose
from tfscale.models.counts import flops
from tfscale.orchestrate.orchestrator import prepare_folder
from tfscale.plan.plan import Plan, make_plan
from tfscale.plan.unreached import unreached_stages
from tfscale.stage.folder import Stage
from tfscale.stage.result import DONE_FILE, FinalEvaluation, Result, write_result
from tfscale.stage.spec import STAGE_FILE
from tfscale.totals import Totals

MUON = ["optim.name=muon", "optim.lr=2e-2"]


def plan_of(overrides: list[str], *more: str) -> Plan:
    return make_plan(compose([*overrides, "growth=exact", *more]))


def finish(*stages: Stage) -> None:
    """Write the files that mark a stage as finished."""
    for stage in stages:
        tokens = stage.spec.tokens
        totals = Totals(tokens, tokens * flops(stage.spec.model).training, 1.0, 1.0)
        evaluation = FinalEvaluation(2.0, 7.4, 1.5)
        prepare_folder(stage)
        write_result(stage.path, Result(stage.key, stage.spec.steps, tokens, Totals(), totals, evaluation, "step-0"))


def found(plan: Plan) -> dict[str, list[str]]:
    return {each.folder.name: [str(one) for one in each.differences] for each in unreached_stages(plan)}


def test_a_changed_default_names_the_stages_it_leaves_and_the_fields(small: list[str]) -> None:
    before = plan_of(small)
    first, second, *_ = before.chain.stages
    finish(first, second)
    after = plan_of(small, *MUON)
    assert found(after) == {
        first.path.name: ["optimizer.name adamw -> muon", "optimizer.lr 0.01 -> 0.02"],
        second.path.name: ["optimizer.name adamw -> muon"],
    }, "what follows from the parent is left out, and so are settings that AdamW does not have"
    assert found(before) == {}, "the plan contains its finished stages"
    finish(*after.chain.stages)
    assert found(after) == {}, "nothing is left to train"


def test_values_that_files_leave_out_at_their_defaults_are_shown(small: list[str]) -> None:
    finish(plan_of(small).chain.stages[0])
    [fields] = found(plan_of(small, "optim.embedding_ratio=0.5", "optim.parametrization=fan_in")).values()
    assert fields == ["optimizer.embedding_ratio 1 -> 0.5", "model.base_fan_in none -> 16"]


def test_a_stage_that_differs_in_its_parent_alone_says_so(small: list[str]) -> None:
    before, after = plan_of(small), plan_of(small, "schedule.stages.stage1.tokens=4096")
    finish(before.chain.stages[1])
    [[field]] = found(after).values()
    assert field == f"parent {before.chain.stages[0].key} -> {after.chain.stages[0].key}"


def test_only_the_nearest_of_several_former_versions_is_named(small: list[str]) -> None:
    near = plan_of(small, "optim.lr=3e-2").chain.stages[0]
    finish(near, plan_of(small, "optim.lr=3e-2", "optim.beta1=0.8").chain.stages[0])
    assert found(plan_of(small)) == {near.path.name: ["optimizer.lr 0.03 -> 0.01"]}


def test_stages_of_other_seeds_sizes_parents_or_many_changes_are_not_named(small: list[str]) -> None:
    every = ["beta1=0.8", "beta2=0.9", "eps=1e-6", "weight_decay=0.2", "clip=2", "lr=1e-3", "lr_schedule=wsd",
             "min_lr_ratio=0.5", "warmup=0.5"]  # fmt: skip
    others = [["seed=1", "data.shuffle_seed=1"], ["model.d_model=32"], [f"optim.{each}" for each in every]]
    for more in others:
        finish(plan_of(small, *more).chain.stages[0])
    jump = plan_of(small, "baseline=one_jump", "optim.lr=3e-2").baselines[0].stages[-1]
    finish(jump)
    assert found(plan_of(small)) == {}, "the last size of the chain does not grow from its base"
    assert jump.path.name in found(plan_of(small, "baseline=one_jump"))


def test_damaged_and_unfinished_stages_are_left_out(small: list[str]) -> None:
    first, second, third, _ = plan_of(small).chain.stages
    finish(first, second, third)
    (first.path / STAGE_FILE).write_text("{")
    (second.path / DONE_FILE).unlink()
    assert list(found(plan_of(small, *MUON))) == [third.path.name]


def test_a_corpus_that_is_missing_hides_them_for_keys_depend_on_it(small: list[str], tmp_path: Path) -> None:
    finish(plan_of(small).chain.stages[0])
    assert found(plan_of(small, f"data.path={tmp_path / 'nowhere'}", "model.vocab_size=300")) == {}


def test_plan_lists_them_below_its_tables_and_in_json(small: list[str]) -> None:
    first, second, *_ = plan_of(small).chain.stages
    finish(first, second)
    command = ["plan", *small, "growth=exact", "optim.lr=2e-2"]
    output = CliRunner().invoke(app, command).output
    assert "2 finished stages in the runs folder are not part of the plan" in output
    assert f"  {first.path.name}: optimizer.lr 0.01 -> 0.02\n" in output
    listed = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["unreached"]
    assert [Path(each["folder"]).name for each in listed] == [first.path.name, second.path.name]
    assert listed[0]["differences"] == [{"field": "optimizer.lr", "finished": 0.01, "planned": 0.02}]
    assert listed[0]["planned"] == plan_of(small, "optim.lr=2e-2").chain.stages[0].key


def test_a_run_says_it_in_one_line(small: list[str]) -> None:
    finish(plan_of(small).chain.stages[0])
    unreached = unreached_stages(plan_of(small, *MUON))
    line = unreached_line(unreached)
    assert line.startswith("1 finished stage in the runs folder is not part of the plan (optimizer.")
    assert line.endswith("; `tfscale plan` lists the fields that differ")
    assert unreached_words([]) == []
    assert len(unreached_words(unreached * 9)) == 6, "a heading, four stages, and the number of others"
