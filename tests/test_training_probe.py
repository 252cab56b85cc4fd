"""The dry step that probes a micro-batch, and the memory that is counted on."""

from collections.abc import Callable

import pytest
import torch
from stages import planned, trainer_of

from tfscale.training.device import Device, free_memory
from tfscale.training.probe import dry_step

CPU = Device("cpu", bf16=False, compiled=False)


@pytest.mark.parametrize("fault", [False, True])
def test_a_dry_step_leaves_nothing_behind(small: list[str], fault: bool) -> None:
    trainer = trainer_of(planned(small)[0])
    trainer.state.reset()
    weights = {name: parameter.clone() for name, parameter in trainer.state.model.named_parameters()}
    random = torch.get_rng_state()
    passes: list[tuple[int, ...]] = []

    def look(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        passes.append(tuple(inputs[0].shape))
        torch.rand(3)  # as something in a model might
        if fault:
            raise torch.OutOfMemoryError("as a device would")

    trainer.objective.register_forward_pre_hook(look)
    attempt: Callable[[], None] = lambda: dry_step(trainer.objective, 3, trainer.spec, CPU)  # noqa: E731
    if fault:
        with pytest.raises(torch.OutOfMemoryError):
            attempt()
    else:
        attempt()
    assert passes == [(3, 32)]
    assert torch.equal(torch.get_rng_state(), random)
    for name, parameter in trainer.state.model.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, weights[name])


def test_free_memory_is_shared_among_the_processes_of_a_host() -> None:
    whole, quarter = free_memory(CPU, 1), free_memory(CPU, 4)
    assert 0 < quarter < whole
