"""Tests of plans, their keys, and chains run by real processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stages import planned, train, wait_for

from tfscale.config.compose import compose
from tfscale.faults import UserFault
from tfscale.models.counts import flops, parameters
from tfscale.plan.arms import cumulative_flops
from tfscale.plan.plan import Plan, make_plan
from tfscale.predict import preflight
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage, find_stage
from tfscale.stage.growth_record import read_growth
from tfscale.stage.result import read_result
from tfscale.stage.status import status_of
from tfscale.text import duration


def plan_of(*overrides: str) -> Plan:
    return make_plan(compose(overrides))


def keys(plan: Plan) -> list[str]:
    return [stage.key for stage in plan.chain.stages]


def test_the_papers_chain_has_its_sizes_and_budgets() -> None:
    plan = plan_of("schedule=progressive_1b4", "baseline=scratch")
    assert [round(parameters(stage.spec.model) / 1e6, 1) for stage in plan.chain.stages] == [
        123.6,
        354.2,
        753.8,
        1309.7,
    ]
    assert [round(stage.spec.tokens / 1e9) for stage in plan.chain.stages] == [300, 30, 30, 30]
    transformer = next(arm for arm in plan.arms if arm.name == "transformer_scratch")
    for ours, theirs in zip(plan.chain.stages, transformer.stages, strict=True):
        assert parameters(theirs.spec.model) == pytest.approx(parameters(ours.spec.model), rel=0.01)


def test_three_budgets_share_one_base() -> None:
    budgets = [keys(plan_of("schedule=progressive_1b4", f"schedule.growth_tokens={n}B")) for n in (15, 30, 60)]
    assert len({each[0] for each in budgets}) == 1
    assert len({each[1] for each in budgets}) == 3


@pytest.mark.parametrize(
    ("override", "first_changed"),
    [
        ("schedule.stages.stage3.tokens=2M", 2),
        ("schedule.stages.stage4.qkv=300", 3),
        ("schedule.stages.stage2.lr=1e-5", 1),
        ("growth=paper", 1),
        ("seed=1", 0),
        ("data.vocab_size=300", 0),
        ("optim.weight_decay=0.2", 0),
    ],
)
def test_a_changed_field_changes_its_stage_and_descendants(override: str, first_changed: int) -> None:
    before, after = keys(plan_of()), keys(plan_of(override))
    assert before[:first_changed] == after[:first_changed]
    assert not set(before[first_changed:]) & set(after[first_changed:])


@pytest.mark.parametrize(
    "override",
    [
        "launcher.micro_batch=1",
        "launcher.eval_tokens=1000",
        "runs=/tmp/x",
        "launcher.threads=2",
        "tracking=none",
        "budget=2h",
    ],
)
def test_how_a_stage_is_run_is_not_part_of_it(override: str) -> None:
    assert keys(plan_of()) == keys(plan_of(override))


def test_baselines_get_the_chains_cumulative_compute() -> None:
    plan = plan_of("baseline=scratch")
    for arm in plan.baselines:
        for stage in arm.stages if arm.kind == "scratch" else arm.stages[1:]:
            target = next(each for each in plan.chain.stages if each.size == stage.size)
            spent = stage.spec.tokens * flops(stage.spec.model).training
            spent += cumulative_flops(plan.chain, plan.chain.stages[0]) if arm.kind == "trained_on" else 0
            step = stage.spec.batch_tokens * flops(stage.spec.model).training
            assert abs(spent - cumulative_flops(plan.chain, target)) <= step


def test_the_chains_base_is_the_first_tokenformer_from_scratch() -> None:
    plan = plan_of("baseline=tokenformer")
    assert plan.baselines[0].stages[0] == plan.chain.stages[0]


def test_data_goes_on_where_the_parent_stopped_or_starts_again() -> None:
    first, second = plan_of("growth=exact").chain.stages[:2]
    assert second.spec.data.start == first.spec.tokens
    assert plan_of("growth=paper").chain.stages[1].spec.data.start == 0


def test_a_continued_learning_rate_starts_at_the_parents_last() -> None:
    stages = plan_of("growth.lr=continue", "optim.lr_schedule=constant").chain.stages
    assert stages[1].spec.lr_schedule.warmup_from == stages[0].spec.optimizer.lr
    assert plan_of().chain.stages[1].spec.lr_schedule.warmup_from == 0


def test_what_is_missing_for_full_size_is_told_before_anything_is_written(tmp_path: Path) -> None:
    told = "\n".join(map(str, preflight(plan_of("schedule=progressive_1b4", f"runs={tmp_path / 'runs'}"))))
    assert "data: " in told
    assert "tokenizer.json" in told
    assert not list(tmp_path.iterdir())


def test_what_takes_a_cpu_months_is_refused_unless_the_user_insists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfscale.predict.machine._cuda_devices", lambda: 0)

    def refused(*overrides: str) -> bool:
        told = preflight(plan_of(*overrides, f"runs={tmp_path / 'runs'}"))
        return any("the plan would take about" in str(fault) for fault in told)

    assert refused("schedule=progressive_1b4")
    assert not refused("schedule=progressive_1b4", "launcher.device=cpu")
    assert not refused()


def test_an_unwritable_runs_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserFault, match="Not a directory"):
        plan_of(f"runs={tmp_path / 'file' / 'runs'}")
    told = preflight(plan_of(f"runs={tmp_path / 'file'}"))
    assert any("must be in a writable folder" in str(fault) for fault in told)


def test_durations_are_written_for_people() -> None:
    assert [duration(s) for s in (5, 200, 7500, 4e5, 4e6, 1.5e10)] == [
        "5 s",
        "3 min 20 s",
        "2 h 5 min",
        "4.6 days",
        "46 days",
        "476 years",
    ]


def tfscale(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tfscale.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


def measurements(stage: Stage) -> list[tuple[str, int, float]]:
    return [(e["event"], e["step"], e["loss"]) for e in read_events(stage.path) if e["event"] in ("train", "eval")]


def test_a_chain_is_run_compared_and_never_run_again(short: list[str]) -> None:
    done = tfscale("compare", "--baseline", "scratch", "--run-missing", *short, "launcher.parallel=2")
    assert done.returncode == 0, done.stderr
    plan = make_plan(compose([*short, "baseline=scratch"]))
    assert all(status_of(stage).state == "done" for stage in plan.stages)
    assert [read_growth(stage.path) is not None for stage in plan.chain.stages] == [False, True]
    figure = plan.runs / "comparisons" / f"progressive_tiny-{plan.chain.stages[-1].key}" / "figure.png"
    assert figure.read_bytes().startswith(b"\x89PNG")
    for word in ("Transformer from scratch", "Small model trained on", str(figure)):
        assert word in done.stdout
    before = {file: file.stat().st_mtime_ns for file in (plan.runs / "stages").rglob("*") if file.name != "lock"}
    again = tfscale("run", *short)
    assert again.returncode == 0
    assert "all 2 stages are done" in again.stdout
    assert before == {
        file: file.stat().st_mtime_ns for file in (plan.runs / "stages").rglob("*") if file.name != "lock"
    }


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(short: list[str]) -> None:
    slow = [*short, "schedule.stages.stage1.tokens=64K"]
    stage = make_plan(compose(slow)).chain.stages[0]
    command = [sys.executable, "-m", "tfscale.cli", "run", *slow]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: len(read_events(stage.path)) > 3)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate()
    assert run.returncode == 75
    assert "run the same command again to continue" in out
    assert status_of(stage).state == "preempted"
    stopped = read_events(stage.path)[-1]["step"]
    assert tfscale("run", *slow).returncode == 0
    steps = [step for event, step, _ in measurements(stage) if event == "train"]
    assert steps == sorted(set(steps))
    assert [event["step"] for event in read_events(stage.path) if event["event"] == "start"] == [0, stopped]


def test_a_killed_orchestrator_leaves_no_process_behind(small: list[str]) -> None:
    slow = [*small, "schedule.stages.stage1.tokens=1M"]
    stage = make_plan(compose(slow)).chain.stages[0]
    run = subprocess.Popen([sys.executable, "-m", "tfscale.cli", "run", *slow], stdout=subprocess.DEVNULL)
    wait_for(lambda: len(read_events(stage.path)) > 3)
    trainer = next(event["pid"] for event in read_events(stage.path) if event["event"] == "start")
    run.kill()
    run.wait()
    wait_for(lambda: status_of(stage).state == "preempted")
    wait_for(lambda: not Path(f"/proc/{trainer}").exists() or _is_zombie(trainer))


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def test_two_runs_of_one_chain_train_each_stage_once(short: list[str]) -> None:
    overrides = [*short, "schedule.stages.stage1.tokens=32K"]
    command = [sys.executable, "-m", "tfscale.cli", "run", *overrides]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        _, errors = run.communicate()
        assert run.returncode == 0, errors
    for stage in make_plan(compose(overrides)).chain.stages:
        assert sum(event["event"] == "start" for event in read_events(stage.path)) == 1


def test_a_stage_that_fails_ends_the_run_with_the_end_of_its_log(small: list[str]) -> None:
    stage = make_plan(compose(small)).chain.stages[0]
    stage.path.mkdir(parents=True)
    (stage.path / "checkpoints").write_text("in the way")
    failed = tfscale("run", *small)
    assert failed.returncode == 1
    assert "failed while training" in failed.stdout
    assert str(stage.path) in failed.stdout
    assert status_of(stage).state == "failed"


def test_a_broken_parent_stops_the_growth_and_says_so(small: list[str]) -> None:
    base = planned(small)[0]
    assert train(base)
    weights = next((base.path / "checkpoints" / read_result(base.path).checkpoint).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-7])
    failed = tfscale("run", *small)
    assert failed.returncode == 1
    assert weights.name in failed.stdout


def test_a_stage_is_found_by_name_and_by_the_start_of_its_key(small: list[str]) -> None:
    plan = make_plan(compose(small))
    for stage in plan.chain.stages:
        stage.path.mkdir(parents=True)
    first = plan.chain.stages[0]
    assert find_stage(plan.runs, first.path.name) == first.path
    assert find_stage(plan.runs, first.path.name[:-3]) == first.path
    assert find_stage(plan.runs, first.key[:6]) == first.path
    with pytest.raises(ValueError, match="no stage matches this name"):
        find_stage(plan.runs, "zzz")
    with pytest.raises(ValueError, match="several stages"):
        find_stage(plan.runs, "")


def test_a_stages_folder_is_enough_to_run_it_again(short: list[str], tmp_path: Path) -> None:
    parent, stage = planned(short)
    assert train(parent)
    assert train(stage)
    expected = measurements(stage)
    for name in ("metrics.jsonl", "done.json", "growth.json"):
        (stage.path / name).unlink()
    for file in sorted((stage.path / "checkpoints").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    environment = {**os.environ, "PYTHONPATH": ""}
    for module in ("tfscale.growth", "tfscale.training"):
        command = [sys.executable, "-m", module, str(stage.path)]
        subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    assert measurements(stage) == expected
    assert json.loads((stage.path / "done.json").read_text())["key"] == stage.key


def test_a_recipe_by_another_name_is_the_same_recipe() -> None:
    assert keys(plan_of()) == keys(plan_of("growth.name=mine"))


def test_the_small_model_is_trained_on_once_for_all_recipes_that_only_differ_in_new_tokens() -> None:
    arms = [plan_of("baseline=trained_on", f"growth={name}").baselines[0] for name in ("exact", "grouped", "paper")]
    assert arms[0].stages[-1].key == arms[1].stages[-1].key
    assert arms[0].stages[-1].key != arms[2].stages[-1].key


def test_a_growth_that_was_killed_before_its_check_is_made_and_checked_again(short: list[str]) -> None:
    parent, child = planned(short)
    assert train(parent)
    assert train(child)
    expected = json.loads((child.path / "growth.json").read_text())["comparison"]
    for name in ("metrics.jsonl", "done.json", "growth.json"):
        (child.path / name).unlink()
    folder = next((child.path / "checkpoints").glob("step-*"))
    folder.rename(folder.with_name("step-000000000000"))
    assert tfscale("run", *short).returncode == 0
    assert json.loads((child.path / "growth.json").read_text())["comparison"] == expected
    assert status_of(child).state == "done"
