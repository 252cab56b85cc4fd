"""What `auto` becomes: by the memory model, by trying, and by what was before."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from stages import planned, trainer_of
from test_training_parts import SPEC

from tfscale.models.counts import MEMORY_SHARE, memory
from tfscale.models.execution import Execution
from tfscale.models.parameter_tokens import TokenGroup
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.stage.events import Event
from tfscale.stage.spec import StageSpec
from tfscale.training.device import Device, free_memory
from tfscale.training.fitting import EVALUATION_TOKENS, Fit, dry_step, fit, halved
from tfscale.training.world import World

CPU = Device("cpu", bf16=False, compiled=False)
GROUPS = [(TokenGroup(n, 1.0),) for n in (2048, 2048, 8192)]
LARGE = replace(SPEC, model=TokenFormerConfig(12, 768, 12, 50304, 1024, *GROUPS))


class Ranks(World):
    """The leading one of several ranks that agree without a word."""

    def __init__(self, size: int, local_size: int) -> None:
        self.rank, self.size, self.local_size = 0, size, local_size

    def share(self, value: object) -> object:
        return value


def needed(**execution: object) -> int:
    """Free memory that just holds a step."""
    return int(memory(LARGE.model, Execution(**execution)).total / MEMORY_SHARE) + 1  # type: ignore[arg-type]


def fitted(spec: StageSpec, free: int, world: World | None = None, before: Event | None = None) -> Fit:
    return fit(spec, CPU, world or World(), 16, free, before)


def running(**run: object) -> StageSpec:
    return replace(LARGE, run=replace(LARGE.run, **run))  # type: ignore[arg-type]


def test_as_many_sequences_as_fit() -> None:
    assert fitted(LARGE, needed(sequences=16)).micro_batch == 16
    assert fitted(LARGE, needed(sequences=16) - 2).micro_batch == 8
    assert fitted(LARGE, needed(sequences=5)).micro_batch == 4
    assert fitted(LARGE, 1).micro_batch == 1
    assert fitted(running(micro_batch=3), 1).micro_batch == 3
    assert fitted(running(update="in_backward"), 1).micro_batch == 16


def test_what_one_sequence_needs_is_recomputed() -> None:
    for recompute in ("none", "pattention", "blocks"):
        assert fitted(LARGE, needed(sequences=1, recompute=recompute)).recompute == recompute
    assert fitted(running(recompute="pattention"), 1).recompute == "pattention"
    assert fitted(replace(SPEC, run=replace(SPEC.run)), 1).recompute == "blocks", "a Transformer has no Pattention"


def test_a_model_is_divided_where_it_does_not_fit_whole() -> None:
    four = Ranks(4, 2)
    assert fitted(LARGE, needed(sequences=1), four).sharding == "none"
    assert fitted(LARGE, needed(sequences=1) - 2, four).sharding == "full"
    assert fitted(LARGE, 1).sharding == "none", "one process has nobody to share with"
    assert fitted(running(sharding="hybrid"), 1, four).sharding == "hybrid"
    assert fitted(running(sharding="hybrid"), 1, Ranks(4, 4)).sharding == "full"
    assert fitted(running(sharding="hybrid"), 1, Ranks(4, 1)).sharding == "none"
    with pytest.raises(ValueError, match="as many processes on each host; 5 in all, 2 here"):
        fitted(running(sharding="hybrid"), 1, Ranks(5, 2))


def test_a_resume_keeps_what_was_chosen_and_a_setting_overrules_it() -> None:
    before = {"micro_batch": 2, "recompute": "blocks", "sharding": "full", "evaluation_batch": 3}
    plenty, four = needed(sequences=64), Ranks(4, 4)
    assert fitted(LARGE, plenty, four, before) == Fit("full", "blocks", 2, 3, "as before")
    told = running(micro_batch=5, recompute="none", sharding="none")
    assert fitted(told, plenty, four, before) == Fit("none", "none", 5, 3, "set")


def test_evaluations_run_side_by_side_as_far_as_memory_reaches() -> None:
    spec = running(lanes=4)
    assert fitted(spec, 10**12).lanes == 4
    assert fitted(running(), 10**12).lanes == 1
    assert fitted(spec, 10**12, Ranks(2, 2)).lanes == 1, "ranks take their turns"
    assert fit(spec, replace(CPU, compiled=True), World(), 16, 10**12, None).lanes == 1
    batch = EVALUATION_TOKENS["cpu"] // spec.model.context
    three = needed(sequences=3 * batch, recompute="blocks")
    assert fitted(spec, three).lanes == 3
    assert fitted(spec, three - 2).lanes == 2
    assert fitted(spec, 1).lanes == 1
    before = {"micro_batch": 2, "recompute": "blocks", "sharding": "none", "evaluation_batch": 2 * batch}
    assert fitted(spec, three, before=before).lanes == 1, "of the batches that were chosen before"


@pytest.mark.parametrize(("most", "size"), [(100, 12), (11, 6), (3, 3), (2, 2), (0, 1)])
def test_halving_finds_the_first_that_fits(most: int, size: int) -> None:
    tried: list[int] = []

    def fits(sequences: int) -> bool:
        tried.append(sequences)
        return sequences <= most

    assert halved(12, fits) == size
    assert len(tried) <= 4


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
