"""Several processes that train one stage: the same data and, within rounding, the same numbers as one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stages import StopAt, elsewhere, outcome, planned, train

from tfscale.schedule.arms import ArmStage
from tfscale.schedule.ledger import read_done
from tfscale.schedule.orchestrator import prepare_folder
from tfscale.training.events import read_events
from tfscale.training.preemption import PREEMPTED
from tfscale.training.world import World, split_rows


def train_on(ranks: int, stage: ArmStage, stop_at: int | None = None) -> int:
    """Trains with torchrun; `stop_at` asks one rank, not the leading one, to stop before that step."""
    prepare_folder(stage)
    script = Path(__file__).parent / "faults" / "ranks.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    arguments = [str(stage.path), str(stop_at if stop_at is not None else -1)]
    done = subprocess.run([*launcher, str(script), *arguments], check=False, capture_output=True, text=True)
    print(done.stderr)  # shown when a test fails
    return done.returncode


def close(one: ArmStage, several: ArmStage) -> None:
    a, b = outcome(one), outcome(several)
    assert a[2] == b[2]
    assert [(event["event"], event["step"]) for event in a[1]] == [(event["event"], event["step"]) for event in b[1]]
    for ours, theirs in zip(a[1], b[1], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    for name, tensor in a[0].items():
        if name.startswith("model/"):
            torch.testing.assert_close(tensor, b[0][name], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("arm", ["progressive", "transformer_scratch"])
def test_two_ranks_equal_one_within_rounding(small: list[str], arm: str) -> None:
    stage = planned([*small, "launcher.micro_batch=1"], arm)[0]
    assert train(stage)
    two = elsewhere(stage, "two")
    assert train_on(2, two) == 0
    close(stage, two)
    assert read_done(two.path)["totals"]["device_seconds"] > read_done(two.path)["totals"]["seconds"]


def test_the_number_of_ranks_may_change_between_resumes(small: list[str]) -> None:
    stage = planned([*small, "launcher.checkpoint_tokens=512"])[0]
    assert train(stage)
    changing = elsewhere(stage, "changing")
    assert train_on(2, changing, stop_at=6) != 0
    assert [event["reason"] for event in read_events(changing.path) if event["event"] == "end"] == ["preempted"]
    assert not train(changing, StopAt(11))
    assert train_on(2, changing) == 0
    starts = [(e["step"], e["processes"]) for e in read_events(changing.path) if e["event"] == "start"]
    assert starts == [(0, 2), (6, 1), (11, 2)]
    close(stage, changing)


def test_a_growth_between_worlds_of_different_size(small: list[str]) -> None:
    parent, child = planned([*small, "growth=grouped"])[:2]
    assert train_on(2, parent) == 0
    assert train(child)
    first = next(event for event in read_events(child.path) if event["event"] == "eval")
    assert first["step"] == 0
    assert first["loss"] == pytest.approx(read_done(parent.path)["eval"]["loss"], abs=1e-5)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    three = World()
    three.size = 3
    with pytest.raises(ValueError, match="4 sequences, which 3 processes cannot share evenly"):
        split_rows(4, three)


def test_being_asked_to_stop_is_agreed_on(small: list[str]) -> None:
    stage = planned(small)[0]
    train_on(2, stage, stop_at=3)
    assert read_events(stage.path)[-1]["reason"] == "preempted"
    assert read_events(stage.path)[-1]["step"] == 3
    assert PREEMPTED == 75
