"""Tests of energy in the cost record: summed along the lineage where devices measure it, and omitted where they do
not."""

import math

import pytest
import torch
from stages import planned, train, trainer_of

from tfscale import checkpoint
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage
from tfscale.stage.result import read_result
from tfscale.training.costs import Costs, EnergyMeter
from tfscale.training.device import Device
from tfscale.training.optimizer import GradientNorms
from tfscale.training.world import World
from tfscale.verify import verify_stage


class Counter(EnergyMeter):
    """Energy counter of a device that increases by 5 J per reading."""

    works = True

    def __init__(self) -> None:
        self._joules = 1e6

    def joules(self) -> float:
        self._joules += 5.0
        return self._joules


class Watched(EnergyMeter):
    """Energy counter that increases by 1 J per training step and by 1,000 J per batch of an evaluation."""

    works = True

    def __init__(self) -> None:
        self._joules, self.readings = 1e6, 0

    def work(self, *_: object) -> None:
        self._joules += 1.0 if torch.is_grad_enabled() else 1000.0

    def joules(self) -> float:
        self.readings += 1
        return self._joules


def train_metered(stage: Stage) -> float | None:
    trainer = trainer_of(stage)
    trainer.costs = Costs(stage.spec, Counter(), World())
    assert trainer.run()
    joules: float | None = read_result(stage.path).totals.joules
    return joules


def findings(*stages: Stage) -> list[str]:
    return [finding for stage in stages for finding in verify_stage(stage)]


def test_joules_add_up_along_the_lineage_and_the_ledger_is_true(small: list[str]) -> None:
    parent, child = planned(small)[:2]
    assert train_metered(parent) == 5.0 * parent.spec.steps
    assert train_metered(child) == 5.0 * (parent.spec.steps + child.spec.steps)
    first = next(event for event in read_events(child.path) if event["event"] == "eval")
    assert first["total_joules"] == 5.0 * parent.spec.steps
    assert findings(parent, child) == []


def test_the_counter_is_read_around_what_is_logged_and_energy_of_evaluations_is_left_out(small: list[str]) -> None:
    stage = planned([*small, "launcher.log_tokens=512", "launcher.checkpoint_tokens=256"])[0]
    trainer = trainer_of(stage)
    trainer.costs = Costs(stage.spec, meter := Watched(), World())
    trainer.objective.register_forward_pre_hook(meter.work)
    assert trainer.run()
    assert read_result(stage.path).totals.joules == stage.spec.steps == 16
    events = [event for event in read_events(stage.path) if event["event"] in ("train", "eval")]
    assert [event["total_joules"] for event in events] == [event["step"] for event in events]
    points = {event["step"] for event in read_events(stage.path) if event["event"] in ("train", "eval", "checkpoint")}
    assert meter.readings == 2 * len(points)


def test_energy_of_steps_that_are_repeated_is_not_counted(small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["launcher.non_finite=rollback", "launcher.checkpoint_tokens=256", "launcher.log_tokens=2048"]
    stage = planned([*small, *options])[0]
    trainer = trainer_of(stage)
    trainer.costs = Costs(stage.spec, meter := Watched(), World())
    trainer.objective.register_forward_pre_hook(meter.work)
    finish = trainer.update.finish
    bad = iter([False] * 4 + [False, True])  # a step after the checkpoint of step 4

    def finish_or_spoil(loss: torch.Tensor) -> GradientNorms:
        if next(bad, False):
            embedding = next(trainer.state.model.parameters())
            assert embedding.grad is not None
            embedding.grad.fill_(math.nan)
        return finish(loss)

    monkeypatch.setattr(trainer.update, "finish", finish_or_spoil)
    assert trainer.run()
    assert read_result(stage.path).totals.joules == stage.spec.steps - 1, "the bad batch is passed over"


def test_a_lineage_with_an_unmeasured_part_has_no_figure(small: list[str]) -> None:
    parent, child = planned(small)[:2]
    assert train(parent)
    assert read_result(parent.path).totals.joules is None
    assert train_metered(child) is None
    assert not any("total_joules" in event for event in [*read_events(parent.path), *read_events(child.path)])
    assert findings(parent, child) == []


def test_joules_that_fall_are_found(small: list[str]) -> None:
    stage = planned(small)[0]
    train_metered(stage)
    metrics = stage.path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"total_joules": 40.0', '"total_joules": 400.0'))
    assert findings(stage)


def test_a_checkpoint_from_before_joules_were_counted_is_read(small: list[str]) -> None:
    stage = planned(small)[0]
    assert train(stage)
    folder = stage.path / "checkpoints" / read_result(stage.path).checkpoint
    state = folder / "state.json"
    before = checkpoint.read_state(folder)[1]
    state.write_text(state.read_text().replace(',\n      "joules": null', ""))
    assert "joules" not in state.read_text()
    assert checkpoint.read_state(folder)[1] == before


def test_a_device_without_a_counter_has_none() -> None:
    meter = EnergyMeter(Device("cpu", bf16=False, compiled=False))
    assert not meter.works
    assert meter.joules() == 0.0
