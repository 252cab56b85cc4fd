"""Tests of the real training of a stage: uninterrupted, stopped, killed, with gradient accumulation, and with
non-finite values."""

import signal

import pytest
import torch
from stages import (
    ADAMW,
    MUON,
    StopAt,
    elsewhere,
    outcome,
    planned,
    process,
    same,
    train,
    trainer_of,
    wait_for,
)

from tfscale.faults import PREEMPTED
from tfscale.growth.grow_stage import NotPreserved
from tfscale.models.counts import flops as count
from tfscale.models.init import build_model
from tfscale.stage.events import read_events
from tfscale.stage.growth_record import read_growth
from tfscale.stage.result import read_result
from tfscale.stage.status import status_of
from tfscale.training.non_finite import NonFinite
from tfscale.verify import verify_stage

each_optimizer = pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=["adamw", "muon"])


@pytest.mark.parametrize(
    ("arm", "schedule", "optimizer"),
    [
        ("progressive", "cosine", ADAMW),
        ("progressive", "wsd", MUON),
        ("progressive", "constant", ADAMW),
        ("transformer_scratch", "cosine", MUON),
        ("transformer_scratch", "wsd", ADAMW),
        ("transformer_scratch", "constant", MUON),
    ],
)
def test_a_stopped_stage_goes_on_bit_for_bit(
    small: list[str], arm: str, schedule: str, optimizer: tuple[str, ...]
) -> None:
    stage = planned([*small, *optimizer, f"optim.lr_schedule={schedule}", "launcher.micro_batch=3"], arm)[0]
    assert train(stage)
    assert verify_stage(stage) == []
    halved = elsewhere(stage, "halved")
    for step in (1, 7, 8):
        assert not train(halved, StopAt(step))
    assert train(halved)
    assert same(outcome(stage), outcome(halved))


def test_a_short_stage_is_evaluated_five_times_and_a_grown_one_untrained_too(small: list[str]) -> None:
    first, grown = planned(small)[:2]
    for stage, untrained in ((first, []), (grown, [0])):
        assert train(stage)
        steps = [event["step"] for event in read_events(stage.path) if event["event"] == "eval"]
        assert len(steps) == len(untrained) + 5
        assert (steps[: len(untrained)], steps[-1]) == (untrained, stage.spec.steps)


def test_a_stage_stopped_in_an_evaluation_evaluates_again(small: list[str]) -> None:
    stage = planned([*small, "launcher.eval_tokens=512"])[0]
    assert train(stage)
    halved = elsewhere(stage, "halved")
    assert not train(halved, StopAt(4, polls=1))  # during the evaluation of step 4
    assert not [event for event in read_events(halved.path) if event["event"] == "eval"]
    assert train(halved)
    assert same(outcome(stage), outcome(halved))


def test_values_divided_among_three_copies_preserve_as_far_as_float32_can(small: list[str]) -> None:
    parent, child = planned([*small, "growth=split", "growth.noise=0", "schedule.stages.stage2.qkv=12"])[:2]
    train(parent)
    train(child)
    report = read_growth(child.path)
    assert report is not None
    assert report["preserving"]
    assert 0 < report["comparison"]["max_logit_difference"] <= report["comparison"]["tolerance"] < 1e-3


@each_optimizer
@pytest.mark.parametrize("growth", ["paper", "exact", "grouped", "split"])
def test_a_growth_boundary_is_crossed_bit_for_bit(small: list[str], growth: str, optimizer: tuple[str, ...]) -> None:
    parent, child = planned([*small, *optimizer, f"growth={growth}"])[:2]
    train(parent)
    train(child)
    straight = outcome(child)
    first = read_events(child.path)[1]
    assert first["event"] == "eval"
    assert first["step"] == 0
    report = read_growth(child.path)
    assert report is not None
    kept = report["comparison"]["max_logit_difference"] <= report["comparison"]["tolerance"]
    assert kept == (growth in ("exact", "grouped")), "split has noise by default, paper keeps nothing"
    if kept:
        assert first["loss"] == pytest.approx(read_result(parent.path).evaluation.loss, abs=1e-5)
    halved = elsewhere(child, "halved")
    assert not train(halved, StopAt(0))
    assert not train(halved, StopAt(3))
    assert train(halved)
    assert same(straight, outcome(halved))


def test_costs_add_up_along_the_lineage(small: list[str]) -> None:
    stages = planned(small)[:3]
    flops = 0
    for stage in stages:
        train(stage)
        done = read_result(stage.path)
        assert done.before.flops == flops
        flops = done.totals.flops
        assert done.totals.seconds > done.before.seconds
    assert flops == sum(stage.spec.tokens * count(stage.spec.model).training for stage in stages)
    assert read_result(stages[2].path).totals.tokens == sum(stage.spec.tokens for stage in stages)


def test_accumulation_changes_rounding_alone(small: list[str]) -> None:
    whole, parts = planned(small)[0], planned([*small, "launcher.micro_batch=1"])[0]
    assert whole.key == parts.key
    train(whole)
    train(elsewhere(parts, "parts"))
    a, b = outcome(whole), outcome(elsewhere(parts, "parts"))
    for name, tensor in a[0].items():
        if name.startswith("model/"):
            torch.testing.assert_close(tensor, b[0][name], rtol=1e-2, atol=1e-4)
    assert a[2] == b[2]


def test_training_learns(small: list[str]) -> None:
    stage = planned([*small, "schedule.stages.stage1.tokens=65536"])[0]
    train(stage)
    losses = [event["loss"] for event in read_events(stage.path) if event["event"] == "eval"]
    assert losses[-1] < 0.7 * losses[0]
    assert losses[-1] < 2.5  # the bytes of sixteen words


def test_a_bad_number_stops_before_it_spoils_the_weights(small: list[str]) -> None:
    stage = planned(small)[0]
    trainer = trainer_of(stage)
    spoilt = "blocks.0.ffn.values"

    def spoil(*arguments: object) -> None:
        with torch.no_grad():
            trainer.state.model.get_parameter(spoilt)[3] = torch.inf

    trainer.objective.register_forward_pre_hook(spoil)
    with pytest.raises(NonFinite, match=r"step 1: loss .*gradients of .*Decrease optim\.lr"):
        trainer.run()
    for name, parameter in build_model(stage.spec.model, stage.spec.seed).named_parameters():
        assert name == spoilt or torch.equal(trainer.state.model.get_parameter(name), parameter)


@pytest.mark.parametrize(("number", "optimizer"), [(signal.SIGTERM, MUON), (signal.SIGINT, ADAMW)])
def test_a_signal_saves_and_exits_75_and_the_same_command_goes_on(
    small: list[str], number: int, optimizer: tuple[str, ...]
) -> None:
    stage = planned([*small, *optimizer, "schedule.stages.stage1.tokens=1M"])[0]
    child = process(stage)
    wait_for(lambda: len(read_events(stage.path)) > 2)
    assert status_of(stage).state == "running"
    child.send_signal(number)
    assert child.wait() == PREEMPTED
    assert status_of(stage).state == "preempted"
    step = read_events(stage.path)[-1]["step"]
    assert 0 < step < stage.spec.steps
    again = process(stage)
    wait_for(lambda: read_events(stage.path)[-1]["event"] != "end")
    again.kill()
    again.wait()
    assert [event["step"] for event in read_events(stage.path) if event["event"] == "start"] == [0, step]


@each_optimizer
def test_a_killed_stage_goes_on_from_its_checkpoint_bit_for_bit(small: list[str], optimizer: tuple[str, ...]) -> None:
    settings = [*small, *optimizer, "schedule.stages.stage1.tokens=64K", "launcher.checkpoint_tokens=4096"]
    stage = planned(settings)[0]
    assert train(stage)
    killed = elsewhere(stage, "killed")
    for saved in (1, 4):
        child = process(killed)
        wait_for(lambda saved=saved: sum(e["event"] == "checkpoint" for e in read_events(killed.path)) >= saved)  # type: ignore[misc]
        child.kill()
        child.wait()
    assert status_of(killed).state == "interrupted"
    assert train(killed)
    assert same(outcome(stage), outcome(killed))


def test_two_processes_never_train_one_stage(small: list[str]) -> None:
    stage = planned([*small, "schedule.stages.stage1.tokens=1M"])[0]
    first = process(stage)
    wait_for(lambda: len(read_events(stage.path)) > 0)
    second = process(stage)
    _, message = second.communicate()
    assert second.returncode == PREEMPTED
    assert f"process {first.pid}" in message.decode()
    first.kill()
    first.wait()


def test_a_finished_stage_is_left_alone(small: list[str]) -> None:
    stage = planned(small)[0]
    train(stage)
    before = (stage.path / "metrics.jsonl").read_bytes()
    assert process(stage).wait() == 0
    assert (stage.path / "metrics.jsonl").read_bytes() == before


def test_a_recipe_that_breaks_its_word_stops_the_run_and_leaves_nothing(
    small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, child = planned([*small, "growth=paper"])[:2]
    train(parent)
    monkeypatch.setattr("tfscale.growth.tokenformer_recipe.GrowthRecipe.preserves", lambda *arguments: True)
    with pytest.raises(NotPreserved, match="changed them by up to"):
        train(child)
    assert not list((child.path / "checkpoints").glob("step-*"))
    assert not (child.path / "growth.json").exists()
