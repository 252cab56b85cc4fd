"""`tfscale sync`: what a runs folder holds, sent to another store later."""

from pathlib import Path
from typing import Any

import pytest
from schemas import checked
from tracked import contents, finish, runs, train
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.config.compose import compose
from tfscale.faults import UserFault
from tfscale.plan.experiments import experiment_of, record, recorded
from tfscale.plan.plan import Plan, make_plan
from tfscale.tracking.mlflow.tracker import MlflowTracker


@pytest.fixture
def plan(small: list[str]) -> Plan:
    """A plan of which nothing was tracked: its chain is done but for the last stage, which runs."""
    plan = make_plan(compose([*small, "baseline=transformer"]))
    for number, stage in enumerate(plan.chain.stages):
        stage.path.mkdir(parents=True)
        train(stage, range(1, 5), after=5 * number)
        if stage is not plan.chain.stages[-1]:
            finish(stage, after=5 * number)
    record(plan)
    return plan


def sync(plan: Plan, store: MlflowTracker, *overrides: str) -> Any:
    words = ["sync", store.uri, f"runs={plan.runs}", *overrides, "--json"]
    return CliRunner().invoke(app, words, catch_exceptions=False)


def sent(result: Any) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = checked("sync", result.stdout)["experiments"]
    return found


def test_what_was_never_tracked_is_sent_later_and_once(plan: Plan, store: MlflowTracker) -> None:
    (experiment,) = sent(sync(plan, store))
    assert (experiment["stages"], experiment["done"], experiment["not_begun"]) == (8, 3, 4)
    before = contents(store, experiment["experiment"])
    assert experiment["values_sent"] > 0
    assert [each["values_sent"] for each in sent(sync(plan, store))] == [0]
    for path in (plan.runs / "tracking").glob("*.json"):
        path.unlink()
    assert [each["values_sent"] for each in sent(sync(plan, store))] == [0]
    assert contents(store, experiment["experiment"]) == before
    train(plan.chain.stages[-1], range(5, 7), after=15)
    assert [each["values_sent"] > 0 for each in sent(sync(plan, store))] == [True]


def test_overrides_choose_one_experiment(plan: Plan, store: MlflowTracker, small: list[str]) -> None:
    other = make_plan(compose([*small, "growth=paper", "growth.moments=carry"]))
    record(other)
    assert len(sent(sync(plan, store))) == 2
    (chosen,) = sent(sync(plan, store, *small, "baseline=transformer"))
    assert (chosen["arms"], chosen["values_sent"]) == ([arm.name for arm in plan.arms], 0)


def test_comparisons_go_along(plan: Plan, store: MlflowTracker) -> None:
    folder = experiment_of(plan).comparison
    folder.mkdir(parents=True)
    (folder / "table.md").write_text("- a verdict")
    sent(sync(plan, store))
    notes = [run.data.tags.get("mlflow.note.content") for run in runs(store, plan.experiment.schedule.name)]
    assert "- a verdict" in notes


def test_a_server_that_is_away_is_a_failure_that_says_how_to_go_on(plan: Plan) -> None:
    result = CliRunner().invoke(app, ["sync", "http://127.0.0.1:9", f"runs={plan.runs}"])
    assert result.exit_code == 1
    assert "http://127.0.0.1:9" in result.output
    assert "Run the same command again to send the missing values." in result.output


def test_a_folder_without_experiments_or_a_file_store_is_the_users_to_mend(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="contains no experiment"):
        CliRunner().invoke(app, ["sync", "http://127.0.0.1:9", f"runs={tmp_path}"], catch_exceptions=False)
    with pytest.raises(UserFault, match="URI='mlruns'"):
        CliRunner().invoke(app, ["sync", "mlruns", f"runs={plan.runs}"], catch_exceptions=False)


def test_baselines_of_one_chain_are_recorded_together(plan: Plan, small: list[str]) -> None:
    record(make_plan(compose([*small, "baseline=tokenformer"])))
    record(make_plan(compose(small)))
    (experiment,) = recorded(plan.runs)
    assert [arm.name for arm in experiment.arms] == ["progressive", "tokenformer_scratch", "transformer_scratch"]
    assert experiment.arms[0] == plan.chain


def test_a_record_that_is_damaged_is_named(plan: Plan) -> None:
    (path,) = (plan.runs / "experiments").glob("*.json")
    for damage in ("[", '{"format": 2}', path.read_text().replace('"label": "', '"label": "../../')):
        path.write_text(damage)
        with pytest.raises(UserFault, match=rf"{path.name}: the file is damaged"):
            recorded(plan.runs)
