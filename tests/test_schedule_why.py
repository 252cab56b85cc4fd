"""Why a stage of a plan is trained: the most similar finished stages, and overrides with which a plan reuses them."""

import shlex

import pytest
from schemas import checked
from test_schedule_unreached import finish, plan_of
from typer.testing import CliRunner

from tfscale.cli.main import app


def why(small: list[str], name: str, *more: str) -> str:
    result = CliRunner().invoke(app, ["plan", "--why", name, *small, "growth=exact", *more])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_overrides_that_it_names_reuse_the_stage(small: list[str]) -> None:
    finish(*plan_of(small).chain.stages[:3])
    changes = ["optim.name=muon", "optim.lr=2e-2", "optim.warmup=0.5", "schedule.stages.stage1.tokens=4096",
               "growth=tuned", "optim.parametrization=fan_in"]  # fmt: skip
    planned, wanted = plan_of(small, *changes).chain.stages[2], plan_of(small).chain.stages[2]
    lines = why(small, planned.size, *changes).splitlines()
    assert lines[0].startswith(f"{planned.path.name} ({planned.size}, seed 0): not started, so it is trained.")
    assert lines[1].startswith(f"  {wanted.path.name}: optimizer.name adamw -> muon")
    assert "tokens 2048 -> 4096" in lines[2], "its parents differ in more than the stage itself"
    _, _, overrides = lines[3].partition("reused with ")
    again = why(small, wanted.size, *changes, *shlex.split(overrides))
    assert again == f"{wanted.path.name} ({wanted.size}, seed 0): finished, so it is not trained again\n"


def test_the_most_similar_stage_comes_first_and_a_changed_parent_is_found(small: list[str]) -> None:
    near, far = (plan_of(small, "optim.beta1=0.8", *more).chain.stages[:2] for more in ([], ["optim.beta2=0.9"]))
    finish(*near, *far)
    result = CliRunner().invoke(
        app, ["plan", "--json", "--why", plan_of(small).chain.stages[1].key, *small, "growth=exact"]
    )
    [said] = checked("plan", result.stdout)["why"]
    assert said["state"] == "waiting"
    found = [(each["folder"].rpartition("/")[2], each["overrides"]) for each in said["nearest"]]
    assert found == [
        (near[1].path.name, ["optim.beta1=0.8"]),
        (far[1].path.name, ["optim.beta1=0.8", "optim.beta2=0.9"]),
    ]


def test_overrides_that_do_not_reach_a_stage_are_not_named(small: list[str]) -> None:
    finish(plan_of(small, "data.vocab_size=300").chain.stages[0])
    said = why(small, "25K")
    assert "data.fingerprint" in said
    assert said.endswith("no overrides known\n")
    with pytest.raises(AssertionError, match=r"--why=26K: must be a size, .* try one of 25K, 70K, 147K, 254K"):
        why(small, "26K")
