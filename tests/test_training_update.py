"""Tests of weight updates inside the backward pass: the results equal those of whole updates, and invalid combinations
are rejected."""

from dataclasses import replace

import pytest
import torch
from stages import assert_resumes_bit_for_bit, elsewhere, outcome, planned, same, train, trainer_of

from tfscale.config.compose import compose
from tfscale.models.init import build_model
from tfscale.plan.checks import check_experiment
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage
from tfscale.stage.layout import in_backward_faults
from tfscale.stage.result import read_result
from tfscale.training.loop import Trainer
from tfscale.training.non_finite import NonFinite

IN_BACKWARD = ("launcher.update=in_backward", "optim.clip=0")


@pytest.mark.parametrize(
    ("arm", "recompute"), [("progressive", "none"), ("progressive", "blocks"), ("transformer_scratch", "none")]
)
def test_the_numbers_are_those_of_one_update_after_the_backward_pass(
    small: list[str], arm: str, recompute: str
) -> None:
    whole = planned([*small, "optim.clip=0", f"launcher.activation_checkpointing={recompute}"], arm)[0]
    inside = planned([*small, *IN_BACKWARD, f"launcher.activation_checkpointing={recompute}"], arm)[0]
    assert whole.key == inside.key
    assert train(whole)
    inside = elsewhere(inside, "inside")
    assert train(inside)
    assert same(outcome(whole), outcome(inside))


def test_a_stopped_stage_goes_on_bit_for_bit_over_a_growth_too(small: list[str]) -> None:
    parent, child = planned([*small, *IN_BACKWARD, "growth=grouped"])[:2]
    assert train(parent)
    assert_resumes_bit_for_bit(child)


def test_no_gradient_stays(small: list[str]) -> None:
    trainer = trainer_of(planned([*small, *IN_BACKWARD])[0])
    seen: list[int] = []
    for parameter in trainer.state.model.parameters():
        parameter.register_hook(
            lambda _: seen.append(sum(p.grad is not None for p in trainer.state.model.parameters()))
        )
    assert trainer.run()
    assert max(seen) <= 1


def spoil_gradient(trainer: Trainer, step: int) -> Trainer:
    """Make the gradient of one weight infinite whenever the batch of this step is used."""
    count = trainer.spec.sequences
    bad = trainer.batches.sequences((step - 1) * count, count)[0]
    met = [False]

    def look(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        met[0] = torch.is_grad_enabled() and torch.equal(inputs[0], bad)

    trainer.objective.register_forward_pre_hook(look)
    weight = trainer.state.model.get_parameter("blocks.0.ffn.values")
    weight.register_hook(lambda gradient: gradient * torch.inf if met[0] else gradient)
    return trainer


def test_a_bad_gradient_stops_the_stage_which_then_goes_on_from_its_checkpoint(small: list[str]) -> None:
    stage = planned([*small, *IN_BACKWARD, "launcher.checkpoint_tokens=512"])[0]
    assert train(stage)
    spoilt = elsewhere(stage, "spoilt")
    message = r"step 7: .*gradients of blocks\.0\.ffn\.values.*from its last checkpoint.*non_finite=rollback"
    with pytest.raises(NonFinite, match=message):
        spoil_gradient(trainer_of(spoilt), 7).run()
    assert sorted(folder.name for folder in (spoilt.path / "checkpoints").iterdir()) == ["step-000000000004"]
    assert train(spoilt)
    assert same(outcome(stage), outcome(spoilt))


def test_a_bad_gradient_is_rolled_back(small: list[str]) -> None:
    stage = planned([*small, *IN_BACKWARD, "launcher.checkpoint_tokens=512", "launcher.non_finite=rollback"])[0]
    assert spoil_gradient(trainer_of(stage), 7).run()
    assert [event["step"] for event in read_events(stage.path) if event["event"] == "start"] == [0, 4]
    assert read_result(stage.path).non_finite == 1
    assert all(tensor.isfinite().all() for tensor in outcome(stage)[0].values())


def test_a_loss_that_is_no_number_spoils_nothing(small: list[str]) -> None:
    stage = planned([*small, *IN_BACKWARD])[0]
    trainer = trainer_of(stage)
    trainer.objective.register_forward_hook(lambda module, inputs, loss: loss * torch.inf)
    with pytest.raises(NonFinite, match=r"non-finite: only the loss\. The weights of step 0 were kept"):
        trainer.run()
    for name, parameter in build_model(stage.spec.model, stage.spec.seed).named_parameters():
        assert torch.equal(trainer.state.model.get_parameter(name), parameter)


def with_run(stage: Stage, clip: float = 0.0, **run: object) -> Stage:
    spec = stage.spec
    optimizer = replace(spec.optimizer, clip=clip)
    return replace(stage, spec=replace(spec, optimizer=optimizer, run=replace(spec.run, **run)))  # type: ignore[arg-type]


def test_what_it_cannot_do_is_refused(small: list[str]) -> None:
    stage = planned([*small, *IN_BACKWARD])[0]
    trainer_of(stage)
    for refused, message in (
        (with_run(stage, clip=1.0), r"optim\.clip=1\.0: must be 0 with launcher\.update=in_backward"),
        (with_run(stage, micro_batch=2), r"launcher\.micro_batch=2: must be auto with .* processes all 4 sequences"),
        (with_run(stage, non_finite="skip"), r"launcher\.non_finite=skip: must be raise or rollback"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer_of(refused)
    [fault] = in_backward_faults(stage.spec.run, stage.spec.optimizer, devices=2, rows=2)
    assert str(fault) == "launcher.update=in_backward: must be whole with 2 processes; try launcher.update=whole"


def test_it_is_refused_before_anything_is_written() -> None:
    faults = check_experiment(compose(["optim=tiny_adamw", "launcher.update=in_backward", "launcher.non_finite=skip"]))
    assert [str(fault).split(":")[0] for fault in faults] == ["optim.clip=1.0", "launcher.non_finite=skip"]
    assert not check_experiment(compose(["optim=tiny_adamw", *IN_BACKWARD]))
