"""Tests of devices with a queue, for which the host starts a step before it reads the previous loss. A CPU stands in
for the device; the results must equal those of reading each loss at once."""

import numpy as np
import pytest
import torch
from stages import StopAt, elsewhere, outcome, planned, same, train, trainer_of
from test_faults_training import non_finite, policy, spoil
from torch.utils._python_dispatch import TorchDispatchMode

from tfscale.data.batches import Batches
from tfscale.data.shards import Tokens
from tfscale.stage.events import read_events
from tfscale.training.device import Device
from tfscale.training.feed import Feed
from tfscale.training.non_finite import NonFinite

MUON = ("optim.name=muon", "optim.parametrization=fan_in", "optim.embedding_ratio=0.5")


class Queue(Device):
    """CPU device that is treated like a CUDA device with a queue."""

    queues = True


QUEUE = Queue("cpu", bf16=False, compiled=False)


@pytest.mark.parametrize("more", [(), MUON, ("launcher.update=in_backward", "optim.clip=0")])
def test_a_stage_whose_losses_are_read_late_is_the_same(small: list[str], more: tuple[str, ...]) -> None:
    stage = planned([*small, *more, "launcher.checkpoint_tokens=384", "launcher.log_tokens=128"])[0]
    assert train(stage)
    late = elsewhere(stage, "late")
    for step in (1, 7):
        assert not trainer_of(late, StopAt(step), QUEUE).run()
    assert trainer_of(late, device=QUEUE).run()
    assert same(outcome(stage), outcome(late))


@pytest.mark.parametrize(("name", "more"), [("skip", ()), ("skip", MUON), ("rollback", ("optim.clip=0",))])
def test_a_bad_step_changes_nothing_though_it_is_noticed_late(
    small: list[str], name: str, more: tuple[str, ...]
) -> None:
    stage = planned(policy(small, name, *more))[0]
    late = elsewhere(stage, "late")
    assert spoil(trainer_of(stage), 1, 5, 6).run()
    if name == "skip":
        assert not spoil(trainer_of(late, StopAt(1), QUEUE), 1, 5, 6).run()  # a checkpoint before the first update
    trainer = spoil(trainer_of(late, device=QUEUE), 1, 5, 6)
    assert trainer.late
    assert trainer.run()
    assert non_finite(late) == non_finite(stage)
    assert same(outcome(stage), outcome(late))


def test_a_bad_step_that_ends_the_stage_is_named_and_nothing_after_it_is_recorded(small: list[str]) -> None:
    stage = planned([*small, "launcher.log_tokens=128"])[0]
    with pytest.raises(NonFinite, match=r"step 7: loss (inf|nan).*gradients of embedding.*The weights of step 6 were"):
        spoil(trainer_of(stage, device=QUEUE), 7).run()
    assert non_finite(stage) == [7]
    assert [event["step"] for event in read_events(stage.path) if event["event"] == "train"] == [1, 2, 3, 4, 5, 6]


def test_rates_of_rows_do_not_depend_on_when_a_bad_step_is_noticed(small: list[str]) -> None:
    parent, child = planned(policy(small, "skip", "growth.rates.frozen=0.5"))[:2]
    assert train(parent)
    late = elsewhere(child, "late")
    assert spoil(trainer_of(child), 2).run()
    assert spoil(trainer_of(late, device=QUEUE), 2).run()
    assert same(outcome(child), outcome(late))
    corrected = planned(policy(small, "skip", "growth.rates.per_row_bias=true"))[1]
    assert not trainer_of(corrected, device=QUEUE).late, "the correction needs the number of updates"


class Reads(TorchDispatchMode):
    """Counter of the values that the host reads from tensors."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("device", "reads"), [(QUEUE, False), (None, True)])
@pytest.mark.parametrize("more", [(), MUON])
def test_the_host_reads_no_value_to_start_a_step(
    small: list[str], more: tuple[str, ...], device: Device | None, reads: bool
) -> None:
    trainer = trainer_of(planned([*small, *more])[0], device=device)
    trainer.state.reset()
    for _ in range(2):
        with Reads() as mode:
            trainer._start_step()
        assert (mode.count > 0) == reads


@pytest.mark.parametrize("device", [QUEUE, Device("cpu", bf16=False, compiled=False)])
def test_batches_are_those_of_the_steps_in_any_order(device: Device) -> None:
    batches = Batches(Tokens([np.arange(100, dtype=np.uint16)]), 8, order_seed=1)
    feed = Feed(batches, rows=2, stride=4, device=device)
    for first in (0, 4, 8, 4, 8, 40, 44, 44):  # with a rollback and a skipped batch
        assert torch.equal(feed.batch(first), batches.sequences(first, 2))
