"""Bad numbers, and disks that are full."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stages import StopAt, elsewhere, outcome, planned, same, train, trainer_of
from torch import Tensor

from tfscale import checkpoint
from tfscale.orchestrate.orchestrator import prepare_folder
from tfscale.stage.events import read_events
from tfscale.stage.result import read_result
from tfscale.stage.status import status_of
from tfscale.training.journal import spike_score
from tfscale.training.loop import Trainer
from tfscale.training.non_finite import NonFinite
from tfscale.verify import verify_stage


def spoil(trainer: Trainer, *steps: int) -> Trainer:
    """Makes the loss of these steps' batches infinite, whenever they are met."""
    count = trainer.spec.sequences
    bad = [trainer.batches.sequences((step - 1) * count, count)[0] for step in steps]
    healthy = trainer.objective

    class Spoilt(torch.nn.Module):
        def forward(self, inputs: Tensor, targets: Tensor, each: bool = False) -> Tensor:
            value: Tensor = healthy(inputs, targets, each)
            return value * torch.inf if any(torch.equal(inputs, one) for one in bad) else value

    trainer.objective = Spoilt()
    return trainer


def policy(small: list[str], name: str, *more: str) -> list[str]:
    return [*small, f"launcher.non_finite={name}", "launcher.checkpoint_tokens=512", "launcher.keep=9", *more]


def non_finite(stage: object) -> list[int]:
    return [event["step"] for event in read_events(stage.path) if event["event"] == "non_finite"]  # type: ignore[attr-defined]


def test_skip_leaves_the_update_out_and_counts_it(small: list[str]) -> None:
    stage = planned(policy(small, "skip"))[0]
    assert spoil(trainer_of(stage), 5, 6).run()
    assert non_finite(stage) == [5, 6]
    assert read_result(stage.path).non_finite == 2
    _, counters = checkpoint.read_state(stage.path / "checkpoints" / read_result(stage.path).checkpoint)
    assert counters.step - counters.optimizer_step == 2
    assert counters.totals.tokens == stage.spec.tokens
    updates = counters.step - 2
    assert counters.totals.optimizer_flops == updates * stage.spec.optimizer.update_flops(stage.spec.model)
    assert verify_stage(stage) == []
    assert all(tensor.isfinite().all() for tensor in outcome(stage)[0].values())


def test_a_skipped_step_is_skipped_again_after_a_resume(small: list[str]) -> None:
    stage = planned(policy(small, "skip"))[0]
    assert spoil(trainer_of(stage), 5).run()
    halved = elsewhere(stage, "halved")
    for step in (4, 5, 9):
        assert not spoil(trainer_of(halved, StopAt(step)), 5).run()
    assert spoil(trainer_of(halved), 5).run()
    assert same(outcome(stage), outcome(halved))


def test_rollback_goes_on_from_the_checkpoint_and_past_the_batch(small: list[str]) -> None:
    stage = planned(policy(small, "rollback"))[0]
    assert spoil(trainer_of(stage), 7).run()
    starts = [event["step"] for event in read_events(stage.path) if event["event"] == "start"]
    assert starts == [0, 4]
    assert non_finite(stage) == [7]
    # All but the one batch is as it is when that batch is skipped.
    skipped = elsewhere(planned(policy(small, "skip"))[0], "skipped")
    assert spoil(trainer_of(skipped), 7).run()
    assert same(outcome(stage), outcome(skipped))


def test_a_rolled_back_stage_remembers_the_batch_after_a_resume(small: list[str]) -> None:
    stage = planned(policy(small, "rollback"))[0]
    assert spoil(trainer_of(stage), 7).run()
    halved = elsewhere(stage, "halved")
    assert not spoil(trainer_of(halved, StopAt(10)), 7).run()
    for folder in sorted((halved.path / "checkpoints").glob("step-*"))[1:]:
        folder.rename(folder.with_name(f"gone-{folder.name}"))  # back to before the batch
    assert train(halved)  # the batch would be healthy now; it is passed over all the same
    assert same(outcome(stage), outcome(halved))


@pytest.mark.parametrize("name", ["skip", "rollback"])
def test_too_many_bad_steps_end_the_stage(small: list[str], name: str) -> None:
    stage = planned(policy(small, name, "launcher.non_finite_cap=2"))[0]
    with pytest.raises(NonFinite, match=r"step 9: .*exceeds launcher\.non_finite_cap=2"):
        spoil(trainer_of(stage), 3, 6, 9).run()
    assert non_finite(stage) == [3, 6, 9]


def test_a_spike_is_measured_against_the_last_losses() -> None:
    quiet = [2.0 + 0.01 * (i % 5) for i in range(64)]
    assert spike_score(2.0, quiet[:10]) is None
    assert abs(spike_score(2.02, quiet) or 0) < 0.1
    assert (spike_score(3.0, quiet) or 0) > 50


def test_every_step_after_a_growth_is_logged(small: list[str]) -> None:
    parent, child = planned([*small, "launcher.log_tokens=1024"])[:2]
    train(parent)
    train(child)
    steps = [event["step"] for event in read_events(child.path) if event["event"] == "train"]
    assert steps == list(range(1, child.spec.steps + 1))
    assert len([event for event in read_events(parent.path) if event["event"] == "train"]) == 2


def test_checkpoints_at_milestones_stay(small: list[str]) -> None:
    stage = planned([*small, "launcher.checkpoint_tokens=256", "launcher.keep=1", "launcher.keep_tokens=1024"])[0]
    train(stage)
    kept = [int(folder.name[5:]) for folder in sorted((stage.path / "checkpoints").glob("step-*"))]
    assert kept == [8, 16]


def run_limited(stage: object, limit: int) -> subprocess.CompletedProcess[str]:
    """The stage, in a process whose files cannot grow beyond `limit` bytes."""
    prepare_folder(stage)  # type: ignore[arg-type]
    code = (
        "import resource, sys; from tfscale.training.__main__ import main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); sys.exit(main())"
    )
    command = [sys.executable, "-c", code, str(stage.path)]  # type: ignore[attr-defined]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_write_that_fails_keeps_the_last_checkpoint_and_resumes_when_it_can(small: list[str]) -> None:
    settings = [*small, "launcher.checkpoint_tokens=512"]
    stage = planned(settings)[0]
    assert train(stage)
    starved = elsewhere(stage, "starved")
    assert not train(starved, StopAt(5))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    failed = run_limited(starved, 30_000)
    assert failed.returncode == 1
    assert "could not be written" in failed.stderr
    assert status_of(starved).state == "failed"
    newest = checkpoint.latest(starved.path / "checkpoints", lambda message: None)
    assert newest is not None
    assert newest.name.endswith("05")
    assert not list((starved.path / "checkpoints").glob(".*"))
    assert train(starved)
    assert same(outcome(stage), outcome(starved))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_with_what_is_needed_and_free(small: list[str], tmp_path: Path) -> None:
    stage = planned(small)[0]
    folder = stage.path / "checkpoints"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    try:
        with pytest.raises(OSError, match=r"needs 0\.\d MB, but .* has only 0\.\d MB of free space.*Free some space"):
            train(stage)
        subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)
        assert train(stage)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
