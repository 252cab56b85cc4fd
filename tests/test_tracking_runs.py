"""What the mirror holds: runs, curves, models, data sets, comparisons."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tracked import (
    BATCH,
    GFLOPS_A_STEP,
    at,
    chain,
    client,
    contents,
    end,
    evaluate,
    finish,
    finished_chain,
    loss,
    models,
    points,
    run,
    runs,
    scratch,
    sync,
    train,
    values,
)

from tfscale.analysis import style
from tfscale.models.counts import parameters
from tfscale.plan.arms import Arm, over_seeds
from tfscale.tracking.mlflow.metrics import CURVE, ENDPOINTS
from tfscale.tracking.mlflow.tracker import MlflowTracker
from tfscale.tracking.sync import COLOURS, Session
from tfscale.tracking.tracker import TrackingError


def test_an_arm_is_a_run_and_its_stages_are_its_children(store: MlflowTracker, tmp_path: Path) -> None:
    sync(store, "tiny", [finished_chain(tmp_path)])
    arm, base, child = run(store), run(store, "1M"), run(store, "2M")
    assert len(runs(store)) == 3
    assert {base.data.tags["mlflow.parentRunId"], child.data.tags["mlflow.parentRunId"]} == {arm.info.run_id}
    assert (arm.info.run_name, child.info.run_name) == ("Grown", "2M Grown")
    expected = {"key": "key-2M", "parent": "key-1M", "growth": "exact", "seed": "0", "size": "2M"}
    assert expected.items() <= {tag.removeprefix("tfscale."): value for tag, value in child.data.tags.items()}.items()
    assert "tfscale.growth" not in base.data.tags


def test_metrics_stand_at_the_tokens_of_the_lineage_and_at_the_time_of_the_event(
    store: MlflowTracker, tmp_path: Path
) -> None:
    sync(store, "tiny", [finished_chain(tmp_path)])
    child = run(store, "2M")
    assert values(store, child, "train/loss") == [(n * BATCH, loss(n)) for n in range(11, 21)]
    assert values(store, child, "heldout/perplexity") == [(n * BATCH, 100.0 - n) for n in range(12, 21, 2)]
    first = min(client(store).get_metric_history(child.info.run_id, "train/loss"), key=lambda point: point.step)
    assert first.timestamp == int(at(10, 1) * 1000)


def test_the_chain_has_one_curve_over_compute(store: MlflowTracker, tmp_path: Path) -> None:
    sync(store, "tiny", [finished_chain(tmp_path)])
    whole = [(n * GFLOPS_A_STEP, 100.0 - n) for n in range(2, 21, 2)]
    assert values(store, run(store), CURVE) == whole
    assert values(store, run(store, "2M"), CURVE) == whole[5:]
    assert values(store, run(store), ENDPOINTS) == [whole[4], whole[9]]


def test_runs_of_their_own_have_curves_of_their_own_and_common_end_points(store: MlflowTracker, tmp_path: Path) -> None:
    arm = scratch(tmp_path)
    train(arm.stages[0], range(1, 5))
    train(arm.stages[1], range(1, 9))
    finish(arm.stages[1])
    sync(store, "tiny", [arm])
    parent = run(store, arm="scratch")
    assert CURVE not in parent.data.metrics
    assert len(values(store, run(store, "1M", "scratch"), CURVE)) == 2
    assert values(store, parent, ENDPOINTS) == [(8 * GFLOPS_A_STEP, 92.0)]  # of the stage that is done


def test_parameters_and_artifacts_are_those_of_the_stage(store: MlflowTracker, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    (arm.stages[1].path / "growth.json").write_text("{}")
    sync(store, "tiny", [arm])
    child = run(store, "2M")
    model = arm.stages[1].spec.model
    expected = {
        "parameters": str(parameters(model)),
        "model.ffn.0.n": "8",
        "optimizer.lr": "0.003",
        "growth.tau": "keep",
    }
    assert expected.items() <= child.data.params.items()
    assert not [name for name in child.data.params if name.startswith(("run.", "label"))]
    names = {file.path for file in client(store).list_artifacts(child.info.run_id)}
    assert names == {"stage.yaml", "growth.json", "done.json"}
    assert child.info.artifact_uri.startswith(f"file://{tmp_path}/mlartifacts/")


def test_more_parameters_and_longer_ones_than_mlflow_takes_at_once(store: MlflowTracker, tmp_path: Path) -> None:
    arm = chain(tmp_path)
    many = {"name": "own", "long": "x" * 9000, **{f"setting_{n}": n for n in range(250)}}
    base = replace(arm.stages[0], spec=replace(arm.stages[0].spec, growth=many))
    train(base, range(1, 3))
    sync(store, "tiny", [replace(arm, stages=(base,))])
    params = run(store, "1M").data.params
    assert len([name for name in params if name.startswith("growth.setting_")]) == 250
    assert params["growth.long"] == "x" * 6000


def test_more_points_than_a_batch_holds(store: MlflowTracker, tmp_path: Path) -> None:
    arm = chain(tmp_path)
    train(arm.stages[0], range(1, 401))
    sent = sync(store, "tiny", [arm])
    stored = contents(store)
    assert sent == points(store) > 2000
    assert set(stored.values()) == {1}


def test_a_stage_that_arms_and_schedules_share_has_a_run_in_each(store: MlflowTracker, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    longer = Arm("trained_on", "Trained on", "trained_on", arm.stages[:1])
    sync(store, "tiny", [arm, longer])
    sync(store, "other", [arm])
    assert run(store, "1M", "trained_on").data.tags["mlflow.parentRunId"] == run(store, arm="trained_on").info.run_id
    assert [len(runs(store, name)) for name in ("tiny", "other")] == [5, 3]
    assert values(store, run(store, "1M", "trained_on"), CURVE) == values(store, run(store, "1M", name="other"), CURVE)


def test_the_status_is_what_the_folder_says(store: MlflowTracker, tmp_path: Path) -> None:
    arm = chain(tmp_path)
    base, child = arm.stages
    session = Session(store, "tiny")

    def statuses() -> list[str]:
        session.sync([arm])
        return [run(store, "1M").info.status, run(store).info.status]

    train(base, range(1, 5))
    assert statuses() == ["RUNNING", "RUNNING"]
    end(base, "preempted")
    assert statuses() == ["KILLED", "KILLED"]
    train(base, range(5, 7))
    assert statuses() == ["RUNNING", "RUNNING"]
    end(base, "failed")
    assert statuses() == ["FAILED", "FAILED"]
    train(base, range(7, 11))
    finish(base)
    assert statuses() == ["FINISHED", "RUNNING"]  # the arm's next stage has not begun
    train(child, range(1, 11), after=10)
    finish(child, after=10)
    assert statuses() == ["FINISHED", "FINISHED"]
    assert run(store, "2M").info.start_time == int(at(10, 0) * 1000)
    assert run(store, "2M").info.end_time == int(at(10, 10) * 1000 + 500)


def test_an_arm_that_has_not_begun_has_no_run(store: MlflowTracker, tmp_path: Path) -> None:
    assert sync(store, "tiny", [chain(tmp_path)]) == 0
    assert client(store).get_experiment_by_name("tiny") is None


def test_mlflow_settings_in_the_environment_do_not_interfere(
    store: MlflowTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = client(store).create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", foreign.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    sync(store, "tiny", [finished_chain(tmp_path)])
    assert len(runs(store)) == 3
    assert client(store).get_run(foreign.info.run_id).data.metrics == {}


def test_a_comparison_is_a_run_that_shows_its_table_and_holds_its_files(store: MlflowTracker, tmp_path: Path) -> None:
    arm, folder = finished_chain(tmp_path), tmp_path / "comparisons" / "tiny"
    sync(store, "tiny", [arm], folder)
    assert len(runs(store)) == 3  # nothing has been compared yet
    folder.mkdir(parents=True)
    (folder / "table.md").write_text("- the chain is below")
    for content in ("<svg/>", "<svg>new</svg>"):
        (folder / "figure.svg").write_text(content)
        sync(store, "tiny", [arm], folder)
    (comparison,) = [found for found in runs(store) if found.data.tags["tfscale.role"] == "comparison"]
    assert (comparison.info.run_name, comparison.info.status) == ("comparison of Grown", "FINISHED")
    assert comparison.data.tags["mlflow.note.content"] == "- the chain is below"
    assert Path(client(store).download_artifacts(comparison.info.run_id, "figure.svg")).read_text() == "<svg>new</svg>"


def test_a_finished_stage_is_a_model_that_points_to_its_checkpoint(store: MlflowTracker, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    checkpoint = arm.stages[1].path / "checkpoints" / "step-000000000010"
    checkpoint.mkdir(parents=True)
    train(arm.stages[0], range(11, 12))
    (arm.stages[0].path / "done.json").unlink()
    sync(store, "tiny", [arm])
    (model,) = models(store).values()
    child = run(store, "2M")
    assert (model.name, model.status, model.source_run_id) == ("label-2M-key-2M", "READY", child.info.run_id)
    assert [each.model_id for each in child.outputs.model_outputs] == [model.model_id]
    assert model.tags["tfscale.checkpoint"] == str(checkpoint.relative_to(tmp_path)), "from the runs folder"
    assert model.tags["tfscale.growth"] == "exact"
    measured = {metric.key: (metric.step, metric.value) for metric in model.metrics}
    assert measured["final/perplexity"] == (20 * BATCH, 80.0)
    assert measured["final/flops"] == (20 * BATCH, 20 * GFLOPS_A_STEP * 1e9)
    assert values(store, child, "final/perplexity") == [(20 * BATCH, 80.0)]
    assert not list(checkpoint.iterdir())


def test_what_eval_measured_stands_beside_the_compute_and_on_the_model(store: MlflowTracker, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    child = arm.stages[1]
    sync(store, "tiny", [arm])
    evaluate(child, acc=0.5, acc_stderr=0.1)
    assert sync(store, "tiny", [arm]) == 5 + 4  # to the stage's run, and to the arm's without the error
    found = {metric.key: metric.value for metric in models(store)[child.key].metrics}
    assert (found["eval/lambada/acc"], found["eval/my text.txt/perplexity"]) == (0.5, 2.75)
    assert values(store, run(store, "2M"), "eval/lambada/acc") == [(20 * BATCH, 0.5)]
    assert values(store, run(store), "eval/lambada/acc_by_gflop") == [(20 * GFLOPS_A_STEP, 0.5)]
    evaluate(child, second=1, acc=0.75, acc_stderr=0.1)
    sync(store, "tiny", [arm])
    assert values(store, run(store, "2M"), "eval/lambada/acc") == [(20 * BATCH, 0.5), (20 * BATCH, 0.75)]
    assert run(store, "2M").data.metrics["eval/lambada/acc"] == 0.75  # the newest is the one shown


def test_a_record_that_is_damaged_holds_up_no_other_stage(store: MlflowTracker, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    (arm.stages[0].path / "evaluations.json").write_text("{")
    with pytest.raises(TrackingError, match=r"label-1M/evaluations\.json"):
        sync(store, "tiny", [arm])
    assert run(store, "2M").info.status == "FINISHED"


def test_a_stage_that_arms_share_is_one_model(store: MlflowTracker, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    longer = Arm("trained_on", "Trained on", "trained_on", arm.stages[:1])
    for _ in range(2):
        sync(store, "tiny", [arm, longer])
    made_by = Counter(each.model_id for found in runs(store) for each in found.outputs.model_outputs)
    assert made_by == {models(store)["key-1M"].model_id: 2, models(store)["key-2M"].model_id: 1}


def test_the_corpus_is_an_input_of_every_stage(store: MlflowTracker, tmp_path: Path) -> None:
    sync(store, "tiny", [finished_chain(tmp_path)])
    for size in ("1M", "2M"):
        (corpus,) = run(store, size).inputs.dataset_inputs
        assert (corpus.dataset.digest, corpus.tags[0].value) == ("corpus", "training")


def test_the_same_arm_with_another_recipe_or_seed_is_another_run(store: MlflowTracker, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    base, child = arm.stages
    other = replace(child, key="key-other", spec=replace(child.spec, growth={"name": "paper", "tau": "keep"}))
    seeded = replace(arm, stages=(replace(base, key="key-seed", spec=replace(base.spec, seed=1)),))
    sync(store, "tiny", [over_seeds((arm, seeded))])
    sync(store, "tiny", [replace(arm, stages=(base, other))])
    arms = {found.info.run_name: found.data.tags for found in runs(store) if found.data.tags["tfscale.role"] == "arm"}
    assert set(arms) == {"Grown", "Grown, seed 1"}
    growths = Counter(found.data.tags.get("tfscale.growth") for found in runs(store))
    assert growths == {"exact": 2, "paper": 2, None: 4}
    assert sync(store, "tiny", [over_seeds((arm, seeded))]) == 0


def test_arms_have_the_colours_of_the_comparisons_figures(store: MlflowTracker, tmp_path: Path) -> None:
    assert (style.CHAIN.colour, *(other.colour for other in style.OTHERS)) == COLOURS
    arm, other = finished_chain(tmp_path), scratch(tmp_path)
    sync(store, "tiny", [arm, other])
    shown = {found.info.run_name: found.data.tags["mlflow.runColor"] for found in runs(store)}
    assert shown == dict.fromkeys(("Grown", "1M Grown", "2M Grown"), COLOURS[0]) | dict.fromkeys(
        ("From scratch", "1M From scratch"), COLOURS[1]
    )
    client(store).set_tag(run(store).info.run_id, "mlflow.runColor", "#123456")
    train(arm.stages[1], range(11, 12), after=10)
    sync(store, "tiny", [arm, other])
    assert run(store).data.tags["mlflow.runColor"] == "#123456"  # what people chose


def test_the_devices_figures_are_system_metrics(store: MlflowTracker, tmp_path: Path) -> None:
    arm = finished_chain(tmp_path)
    log = arm.stages[0].path / "metrics.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    for event in events:
        if event["event"] == "train":
            extra = {
                "tokens_per_second": 50.0,
                "peak_memory": 3_000_000_000,
                "total_device_seconds": 2 * event["step"],
                "total_joules": 9 * event["step"],
            }
            event.update(extra)
    log.write_text("\n".join(map(json.dumps, events)) + "\n")
    sync(store, "tiny", [arm])
    latest = run(store, "1M").data.metrics
    assert latest["system/tokens_per_second"] == 50.0
    assert latest["system/power_watts"] == 4.5
    assert latest["system/peak_memory_gigabytes"] == 3.0
    assert latest["system/model_teraflops_per_second"] == pytest.approx(GFLOPS_A_STEP / 2 / 1000)
