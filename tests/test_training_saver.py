"""Tests of checkpoints that a thread writes during training, one at a time and with every error reported."""

import pytest
from stages import StopAt, elsewhere, outcome, planned, prepare_folder, same, trainer_of

from tfscale import checkpoint
from tfscale.checkpoint import Counters
from tfscale.models.init import build_model
from tfscale.stage.events import EventLog, read_events
from tfscale.stage.folder import Stage
from tfscale.totals import Totals
from tfscale.training.device import Device
from tfscale.training.saver import Saver
from tfscale.training.world import World


class Beside(Device):
    """CPU device that saves during training, as CUDA devices do."""

    queues = True


BESIDE = Beside("cpu", bf16=False, compiled=False)


def test_a_stage_that_saves_beside_training_is_the_same(small: list[str]) -> None:
    stage = planned([*small, "launcher.checkpoint_tokens=256", "launcher.keep=9"])[0]
    assert trainer_of(stage).run()
    beside = elsewhere(stage, "beside")
    assert not trainer_of(beside, StopAt(5), BESIDE).run()
    names = [event["name"] for event in read_events(beside.path) if event["event"] == "checkpoint"]
    assert names == [folder.name for folder in sorted((beside.path / "checkpoints").iterdir())]
    assert trainer_of(beside, device=BESIDE).run()
    assert same(outcome(stage), outcome(beside))


def saver_of(stage: Stage) -> Saver:
    prepare_folder(stage)
    return Saver(stage.path, stage.spec, EventLog(stage.path), World(), beside_training=True)


def save(saver: Saver, stage: Stage, step: int) -> None:
    model = build_model(stage.spec.model, seed=step)
    tensors = {f"model/{name}": parameter.detach() for name, parameter in model.named_parameters()}
    saver.save(Counters(step, 0, Totals(), Totals()), tensors)
    for parameter in model.parameters():
        parameter.data.fill_(0.0)  # training continues immediately


def written(stage: Stage) -> list[int]:
    return [event["step"] for event in read_events(stage.path) if event["event"] == "checkpoint"]


def test_writes_follow_each_other_and_hold_what_was_there_when_they_were_asked_for(small: list[str]) -> None:
    stage = planned([*small, "launcher.keep=9"])[0]
    saver = saver_of(stage)
    for step in range(1, 6):
        save(saver, stage, step)
        assert written(stage)[: step - 1] == list(range(1, step)), "a write starts after the end of the previous one"
    saver.wait()
    assert written(stage) == [1, 2, 3, 4, 5]
    for event in read_events(stage.path):
        folder = saver.folder / event["name"]
        checkpoint.verify(folder)
        for name, parameter in build_model(stage.spec.model, seed=event["step"]).named_parameters():
            stored = parameter.detach().clone()
            checkpoint.read(folder, {f"model/{name}": stored})
            assert stored.equal(parameter)


def test_a_failure_comes_up_at_the_next_save_and_nothing_says_that_it_was_written(small: list[str]) -> None:
    stage = planned(small)[0]
    saver = saver_of(stage)
    saver.folder.parent.mkdir(parents=True, exist_ok=True)
    saver.folder.touch()  # a file where the folder of checkpoints should be
    save(saver, stage, 1)
    with pytest.raises(OSError, match="could not be written"):
        save(saver, stage, 2)
    assert not written(stage)
    saver.folder.unlink()
    save(saver, stage, 3)
    saver.wait()
    assert written(stage) == [3]
