"""Tests of the trial step that probes a micro-batch, and of the memory that it relies on."""

from collections.abc import Callable
from inspect import currentframe

import pytest
import torch
from stages import planned, trainer_of
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import InductorError

from tfscale.training.device import Device, free_memory, is_out_of_memory
from tfscale.training.probe import dry_step, measure_peak

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
        torch.rand(3)  # a model might draw random numbers
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


class Counting(Device):
    """Device whose peak memory is the number of forward passes since the last reset."""

    passes = 0

    def peak_memory(self) -> int:
        return Counting.passes

    def reset_peak_memory(self) -> None:
        Counting.passes = 0


@pytest.mark.parametrize(("rows", "with_gradients"), [(3, [False]), (4, [False, True])])
def test_a_measured_step_has_compiled_before_and_has_the_gradients_of_an_earlier_micro_batch(
    small: list[str], rows: int, with_gradients: list[bool]
) -> None:
    trainer = trainer_of(planned(small)[0])
    trainer.state.reset()
    seen: list[bool] = []

    def look(module: torch.nn.Module, _: object) -> None:
        Counting.passes += 1
        seen.append(all(weight.grad is not None for weight in module.parameters()))

    trainer.objective.register_forward_pre_hook(look)
    device = Counting("cpu", bf16=False, compiled=False)
    peak = measure_peak(trainer.objective, 3, rows, trainer.spec, device)
    assert seen == [False, *with_gradients]
    assert peak == len(with_gradients), "not of the first step, in which a model compiles"
    assert Counting.passes == 0, "nor is the stage's own peak that of the probe"


def test_running_out_of_memory_while_compiling_is_running_out_of_memory() -> None:
    memory, other = torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("an error in a kernel")
    for is_memory, inner in ((True, memory), (False, other)):
        failed = InductorError(inner, currentframe())
        caused = RuntimeError("backward pass failed")
        caused.__cause__ = inner
        for fault in (inner, failed, BackendCompilerFailed("inductor", failed, None), caused):
            assert is_out_of_memory(fault) == is_memory
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert is_out_of_memory(MemoryError())


def test_free_memory_is_shared_among_the_processes_of_a_host() -> None:
    whole, quarter = free_memory(CPU, 1), free_memory(CPU, 4)
    assert 0 < quarter < whole
