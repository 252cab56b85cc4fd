"""Tests of the evaluation of the validation loss: parallel batches, padding, precision, and stopping."""

import threading
from dataclasses import replace

import pytest
import torch
from stages import planned, trainer_of

from tfscale.checkpoint import Ranks
from tfscale.training.device import Device
from tfscale.training.evaluation import Evaluation, evaluate
from tfscale.training.loop import Trainer

ALONE = Device("cpu", bf16=False, compiled=False)
CONTEXT = 32


@pytest.fixture
def trainer(small: list[str]) -> Trainer:
    made = trainer_of(planned([*small, f"model.context={CONTEXT}"])[0])
    made.state.reset()
    return made


def evaluated(trainer: Trainer, lanes: int, device: Device = ALONE, polls: int | None = None) -> Evaluation | None:
    left = iter(range(polls) if polls is not None else ())

    def stop() -> bool:
        return polls is not None and next(left, None) is None

    shape = 3, CONTEXT
    ranks = Ranks(0, 1)
    return evaluate(trainer.objective, trainer.data, 20 * CONTEXT, shape, device, ranks, stop, lanes=lanes)


def test_batches_side_by_side_are_the_same_batches(trainer: Trainer) -> None:
    one = evaluated(trainer, 1)
    assert one is not None
    for lanes in (2, 3, 8):
        assert evaluated(trainer, lanes) == one, "to the last bit, the short last batch too"


def test_a_last_batch_that_is_padded_for_compiled_code_has_the_same_losses(trainer: Trainer) -> None:
    seen: list[int] = []
    trainer.objective.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    assert evaluated(trainer, 1, replace(ALONE, compiled=True)) == evaluated(trainer, 1), "to the last bit"
    assert seen == [3] * 7 + [3] * 6 + [2]


def test_batches_side_by_side_make_no_gradients_and_have_the_stage_s_precision(trainer: Trainer) -> None:
    seen: list[tuple[bool, bool]] = []
    both = threading.Barrier(2, timeout=60)

    def look(*_: object) -> None:
        seen.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        if len(seen) <= 2:
            both.wait()  # returns only if two batches run at the same time

    trainer.objective.register_forward_pre_hook(look)
    evaluated(trainer, 2, replace(ALONE, bf16=True))
    assert len(seen) == 7, "batches of three sequences, of twenty"
    assert set(seen) == {(False, True)}


def test_an_evaluation_stops_between_batches(trainer: Trainer) -> None:
    for lanes in (1, 2):
        assert evaluated(trainer, lanes, polls=1) is None
