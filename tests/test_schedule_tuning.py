"""Tests of tuning: the rates of a plan, the text and seeds of the trials, and the reuse of finished stages."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from schemas import checked
from stages import StopAt, train
from sweeps import configured, finish, overrides_of, planned

from tfscale.cli.common import Common
from tfscale.cli.console import leave_stdout
from tfscale.cli.tune import Asked, tune
from tfscale.config.compose import compose
from tfscale.config.overlay import chosen_names, overlay_faults, own_file, write_overlay
from tfscale.faults import UserFault
from tfscale.models.counts import flops
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.events import EventLog, read_events
from tfscale.stage.growth_record import read_growth
from tfscale.stage.result import read_result
from tfscale.training.non_finite import NonFinite
from tfscale.tune.cost import spent
from tfscale.tune.sweep import Sweep
from tfscale.tune.tuning import Tuning, chosen, diverged, stages_left

ALL_ARMS = ("progressive", "transformer_scratch", "tokenformer_scratch", "trained_on")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return configured(tmp_path_factory.mktemp("tuning"))


@pytest.fixture(scope="module")
def overrides(folder: Path, corpus: Path) -> list[str]:
    return overrides_of(folder, corpus, "optim.lr=1e-6")


@pytest.fixture(scope="module")
def plan(folder: Path, overrides: list[str]) -> Plan:
    return planned(folder, overrides)


@pytest.fixture(scope="module")
def tuned(plan: Plan) -> Tuning:
    """Finished tuning of all rates. Its second factor makes training useless, so the present rates are chosen."""
    tuning = Tuning(plan, ALL_ARMS, Sweep((1.0, 1e4), further=0, seeds=1))
    finish(tuning)
    return tuning


def test_every_rate_of_the_chosen_arms_is_found_with_what_it_trains_and_waits_for(plan: Plan) -> None:
    tunables = {
        each.key.removeprefix("schedule."): each for each in Tuning(plan, ALL_ARMS, Sweep((1, 2), 0, 1)).tunables
    }
    assert {key: each.trains for key, each in tunables.items()} == {
        "stages.small.lr": (("progressive", "S"), ("tokenformer_scratch", "S"), ("trained_on", "S")),
        "stages.small.transformer.lr": (("transformer_scratch", "S"),),
        "stages.large.lr": (("progressive", "L"),),
        "stages.large.scratch_lr": (("tokenformer_scratch", "L"),),
        "stages.large.transformer.lr": (("transformer_scratch", "L"),),
        "trained_on_lr": (("trained_on", "L"),),
    }
    waiting = {key for key, each in tunables.items() if each.after == ("schedule.stages.small.lr",)}
    assert waiting == {"stages.large.lr", "trained_on_lr"}
    assert tunables["stages.large.transformer.lr"].now == 2e-6
    assert tunables["stages.large.lr"].now == 1e-6


def test_one_arm_is_tuned_by_itself(plan: Plan) -> None:
    tuning = Tuning(plan, ("transformer_scratch",), Sweep((1, 2), 0, 1))
    assert {each.key for each in tuning.tunables} == {
        "schedule.stages.small.transformer.lr",
        "schedule.stages.large.transformer.lr",
    }


def test_what_grows_beside_the_chain_is_tuned_at_a_rate_of_its_own(folder: Path, overrides: list[str]) -> None:
    """With a shared rate, a choice for one arm would change the other."""
    plan = make_plan(compose([*overrides, "baseline=one_jump"], folder / "conf"))
    tunables = {each.key: each for each in Tuning(plan, ("progressive", "one_jump"), Sweep((1, 2), 0, 1)).tunables}
    assert tunables["schedule.stages.large.lr"].trains == (("progressive", "L"),)
    assert tunables["baseline.arms.one_jump.lr"].trains == (("one_jump", "L"),)
    assert tunables["baseline.arms.one_jump.lr"].after == ("schedule.stages.small.lr",)


def test_nothing_that_is_reported_has_been_chosen_by_its_own_text_or_seed(plan: Plan) -> None:
    several = replace(plan, experiment=replace(plan.experiment, seeds=5))
    tuning = Tuning(several, ALL_ARMS, Sweep((0.5, 1.0), 0, seeds=2))
    reported = make_plan(several.experiment).stages
    for stage in stages_left(tuning.findings()):
        text = stage.spec.data
        assert text.heldout_start >= plan.experiment.data.validation_start + plan.experiment.data.validation_tokens
        assert stage.spec.seed not in {each.spec.seed for each in reported}
        assert text.order_seed not in {each.spec.data.order_seed for each in reported}
        assert stage.key not in {each.key for each in reported}


def test_evaluating_from_the_start_of_the_heldout_text_is_the_stage_it_always_was(plan: Plan) -> None:
    there = replace(plan.experiment, data=replace(plan.experiment.data, validation_start=512))
    before, after = plan.stages, make_plan(there).stages
    assert not {stage.key for stage in before} & {stage.key for stage in after}
    assert before[0].spec.data.heldout_start == 0


def test_the_heldout_text_of_tuning_is_other_text(tuned: Tuning, plan: Plan) -> None:
    """The same weights have another loss on that text. The growth check also uses it."""
    trial = tuned.findings()[0].trials[-1].stages[0]
    spec = replace(trial.spec, data=replace(trial.spec.data, heldout_start=0))
    usual = replace(trial, key="usual", path=trial.path.with_name("tokenformer-usual"), spec=spec)
    assert train(usual)
    ours, theirs = read_result(trial.path), read_result(usual.path)
    assert ours.evaluation.heldout_tokens == theirs.evaluation.heldout_tokens == 512
    assert ours.evaluation.loss != theirs.evaluation.loss
    losses = [
        [event["loss"] for event in read_events(each.path) if event["event"] == "train"] for each in (trial, usual)
    ]
    assert losses[0] == losses[1]


def test_the_best_candidate_is_chosen_and_the_next_size_grows_out_of_it(tuned: Tuning) -> None:
    findings = {finding.tunable.key: finding for finding in tuned.findings()}
    assert len(findings) == 6
    for finding in findings.values():
        assert finding.choice is not None
        losses = {}
        for trial in finding.trials:
            (stage,) = trial.stages
            losses[stage.spec.optimizer.lr] = read_result(stage.path).evaluation.loss
        assert finding.choice.value == min(losses, key=lambda rate: losses[rate])
        assert finding.choice.loss == min(losses.values())
    base = findings["schedule.stages.small.lr"]
    assert base.choice is not None
    assert base.choice.value == 1e-2
    best = base.trials[-1].stages[0]
    assert best.spec.optimizer.lr == 1e-2
    for key in ("schedule.stages.large.lr", "schedule.trained_on_lr"):
        assert {trial.stages[0].spec.parent for trial in findings[key].trials} == {best.key}
    grown = findings["schedule.stages.large.lr"].trials[0].stages[0]
    growth = read_growth(grown.path)
    assert growth is not None
    assert growth["parent"] == best.key


def test_several_seeds_count_by_their_mean(plan: Plan) -> None:
    tuning = Tuning(plan, ("transformer_scratch",), Sweep((0.5, 1.0), further=0, seeds=2))
    finish(tuning)
    trial = tuning.findings()[0].trials[0]
    losses = [read_result(stage.path).evaluation.loss for stage in trial.stages]
    assert len({stage.spec.seed for stage in trial.stages}) == len(set(losses)) == 2
    assert trial.loss == sum(losses) / 2


def test_the_range_is_widened_while_the_best_is_at_its_edge_and_no_further_than_allowed(plan: Plan) -> None:
    tuning = Tuning(plan, ("transformer_scratch",), Sweep((10, 100), further=2, seeds=1))
    finish(tuning)
    finding = tuning.findings()[0]
    assert [trial.value for trial in finding.trials] == [1e-5, 1e-4, 1e-3, 1e-2]
    assert finding.choice is not None
    assert finding.choice.place == "highest"


def test_a_stopped_tuning_goes_on_survives_divergence_and_trains_nothing_twice(
    plan: Plan, folder: Path, overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The test runs the command with real processes."""
    own = [*overrides, "baseline=transformer", "baseline.arms.transformer_scratch.sizes=last", "seed=5",
           "schedule.stages.large.transformer.lr=1e29", "launcher.parallel=2"]  # fmt: skip
    sweep = Sweep((1e-31, 1.0), further=0, seeds=1)
    tuning = Tuning(make_plan(compose(own, folder / "conf")), ("transformer_scratch",), sweep)
    stopped, hopeless = (trial.stages[0] for trial in tuning.findings()[0].trials)
    assert not train(stopped, StopAt(9))
    asked = Asked(("transformer_scratch",), "1e-31,1", 0, 1, None)
    leave_stdout(True)
    assert tune(Common(own, folder / "conf", as_json=True), asked) == 0
    record = checked("tune", capsys.readouterr().out)
    starts = [event["step"] for event in read_events(stopped.path) if event["event"] == "start"]
    assert starts[0] == 0
    assert starts[1:]
    assert 0 not in starts[1:]
    assert diverged(hopeless)
    assert [trial["loss"] is None for trial in record["rates"][0]["trials"]] == [False, True]
    assert record["chosen"] == ["schedule.stages.large.transformer.lr=0.01"]
    written = {file: file.stat().st_mtime_ns for file in tuning.plan.runs.glob("stages/*/*.json*")}
    assert tune(Common(own, folder / "conf", as_json=True), asked) == 0
    assert json.loads(capsys.readouterr().out) == record
    leave_stdout(False)
    assert written == {file: file.stat().st_mtime_ns for file in tuning.plan.runs.glob("stages/*/*.json*")}


def test_where_every_candidate_diverges_nothing_is_chosen_and_what_grows_out_waits(plan: Plan) -> None:
    hot = replace(plan, experiment=replace(plan.experiment, seed=9, optim=replace(plan.experiment.optim, lr=1e28)))
    tuning = Tuning(hot, ("progressive",), Sweep((0.5, 1.0), further=0, seeds=1))
    for stage in stages_left(tuning.findings()):
        with pytest.raises(NonFinite):
            train(stage)
        log = EventLog(stage.path)
        log.write("end", reason="failed", message="as the process that trains it says", time=0.0)
        log.close()
    (finding,) = tuning.findings()
    assert finding.choice is not None
    assert math.isinf(finding.choice.loss)
    assert not chosen([finding])
    assert not stages_left(tuning.findings())


def test_what_tuning_cost_is_what_its_runs_cost_without_what_they_grew_out_of(tuned: Tuning) -> None:
    findings = tuned.findings()
    stages = [stage for finding in findings for trial in finding.trials for stage in trial.stages]
    cost = spent(findings)
    assert cost.tokens == sum(stage.spec.tokens for stage in stages)
    assert cost.flops == sum(stage.spec.tokens * flops(stage.spec.model).training for stage in stages)
    assert cost.optimizer_flops == sum(s.spec.steps * s.spec.optimizer.update_flops(s.spec.model) for s in stages)
    seconds = sum(read_result(stage.path).totals.seconds for stage in stages if stage.spec.parent is None)
    assert seconds < cost.seconds < seconds + sum(read_result(stage.path).totals.seconds for stage in stages)


def test_the_command_shows_records_and_writes_what_was_chosen(
    tuned: Tuning, folder: Path, overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """All stages are finished, so nothing is trained."""
    asked = Asked(("all",), "1,10000", 0, 1, "pair_tuned")
    assert tune(Common(overrides, folder / "conf"), asked) == 0
    shown = capsys.readouterr().out
    (path,) = (tuned.plan.runs / "tuning").glob(f"pair-{tuned.key}.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    for told in (
        str(path),
        "chosen, highest",
        "values beyond it may be better",
        "with other seeds",
        "FLOPs",
        *record["chosen"],
    ):
        assert told in shown
    assert "schedule.stages.large.lr=0.01" in record["chosen"]
    keys = {stage["key"] for rate in record["rates"] for trial in rate["trials"] for stage in trial["stages"]}
    assert keys == {stage.key for f in tuned.findings() for trial in f.trials for stage in trial.stages}
    assert record["cost"]["flops"] == spent(tuned.findings()).flops
    again = [text for text in overrides if not text.startswith("schedule=")]
    written = compose(["schedule=pair_tuned", *again], folder / "conf")
    cost = f"analysis.tuning_flops={record['cost']['flops']}"
    assert written == compose([*overrides, *record["chosen"], cost], folder / "conf")
    assert written.schedule.stages["large"].scratch_lr == 1e-2


def test_another_schedule_is_taken_over_with_its_own_groups(tmp_path: Path) -> None:
    path = own_file("schedule", "mine", tmp_path)
    write_overlay(path, ["progressive_1b4"], {"schedule.stages.stage2.lr": 1e-4}, ["for a test"])
    mine = compose(["schedule=mine"], tmp_path)
    assert mine == compose(["schedule=progressive_1b4", "schedule.stages.stage2.lr=1e-4"])


def test_all_faults_are_told_at_once_and_nothing_is_written(folder: Path, overrides: list[str], tmp_path: Path) -> None:
    own = [*overrides, f"runs={tmp_path / 'elsewhere'}"]
    with pytest.raises(UserFault) as caught:
        tune(Common(own, folder / "conf"), Asked(("progresive", "trained_on"), "-1,x", -1, 0, "pair"))
    told = "\n".join(caught.value.messages)
    for words in (
        "'-1' must be",
        "'x' must be",
        "--further -1",
        "--seeds 0",
        "of this name",
        "did you mean progressive",
    ):
        assert words in told
    with pytest.raises(UserFault) as caught:
        tune(Common([*own, "optim.lr=-1"], folder / "conf"), Asked(("all",), "1", 0, 1, "../x"))
    told = "\n".join(caught.value.messages)
    for words in ("at least two", "must name a schedule", "optim.lr=-1"):
        assert words in told
    with pytest.raises(UserFault, match=r"rehearse"):
        tune(Common([*own, "schedule.rehearse=true"], folder / "conf"), Asked(("all",), "1,2", 0, 1, None))
    assert not list(tmp_path.iterdir())


def test_a_schedule_that_others_wrote_is_not_overwritten(tmp_path: Path) -> None:
    path = own_file("schedule", "own", tmp_path)
    path.parent.mkdir()
    path.write_text("# mine", encoding="utf-8")
    assert "was not written by tfscale" in str(overlay_faults("schedule", "own", ["progressive_tiny"], tmp_path)[0])
    assert overlay_faults("schedule", "progressive_1b4", ["progressive_tiny"], tmp_path)
    write_overlay(own_file("schedule", "ours", tmp_path), ["progressive_tiny"], {}, [])
    assert overlay_faults("schedule", "ours", ["progressive_tiny"], tmp_path) == []


def test_what_is_taken_over_is_what_hydra_has_chosen(tmp_path: Path) -> None:
    assert chosen_names("schedule", [], tmp_path) == ("progressive_tiny",)
    assert chosen_names("schedule", ["seed=1", "schedule=progressive_1b4"], tmp_path) == ("progressive_1b4",)
    assert chosen_names("baseline", ["seed=1"], tmp_path) == ("none",)
    assert chosen_names("baseline", ["baseline=[scratch,one_jump]"], tmp_path) == ("scratch", "one_jump")


def test_rates_of_arms_are_written_as_a_baseline_of_the_same_name(tmp_path: Path) -> None:
    path = own_file("baseline", "mine", tmp_path)
    write_overlay(path, ["scratch", "one_jump"], {"arms.one_jump.lr": 3e-4}, ["for a test"], whole=False)
    assert overlay_faults("baseline", "mine", ["scratch", "one_jump"], tmp_path) == []
    mine = compose(["baseline=mine"], tmp_path)
    assert mine == compose(["baseline=[scratch,one_jump]", "baseline.arms.one_jump.lr=3e-4"])
