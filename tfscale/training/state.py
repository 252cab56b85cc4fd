"""Training state of a stage between two steps. A checkpoint contains the whole state."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint, Counters, Part
from tfscale.checkpoint.slots import check_slots
from tfscale.models.init import build_model, init_weights
from tfscale.stage.layout import Layout
from tfscale.stage.spec import StageSpec
from tfscale.training.device import Device
from tfscale.training.optimizer import ModelOptimizer
from tfscale.training.parallel import initialise_shards, parallelize, part_of
from tfscale.training.world import World


class StageState:
    """Model, optimizer and counters of a stage. The weights are uninitialised until `load` or `reset` is called."""

    def __init__(self, spec: StageSpec, device: Device, world: World, layout: Layout) -> None:
        self._spec, self._world = spec, world
        torch.manual_seed(spec.seed)  # torch seeds each process randomly, but results must be reproducible
        self._sharded = layout.sharding != "none"
        self.model = build_model(spec.model, device="meta" if self._sharded else device.kind)
        self.objective = parallelize(self.model, world, device, layout)
        if self._sharded:
            self.model.to_empty(device=device.kind)  # allocates only this rank's shards
        apart = spec.run.update == "in_backward"
        self.optimizer = ModelOptimizer(self.model, spec.optimizer, spec.model, one_per_weight=apart)
        self.counters = Counters()

    def reset(self) -> None:
        """Initialise the weights, optimizer state, counters and random generators of a stage that starts from
        scratch."""
        torch.manual_seed(self._spec.seed)
        (initialise_shards if self._sharded else init_weights)(self.model, self._spec.seed)
        self.optimizer.reset(0)
        self.counters = Counters(optimizer=self._spec.optimizer.name)

    def tensors(self) -> dict[str, Tensor | Part]:
        """Return the tensors that this rank writes to a checkpoint, by name."""
        slots = self.optimizer.state() if self.counters.optimizer_step else {}  # a skipped update allocates slots
        whole = self._weights() | slots | rng_tensors()
        parts = {name: part_of(tensor, self._world) for name, tensor in whole.items()}
        return {name: part for name, part in parts.items() if part is not None}

    def load(self, folder: Path) -> None:
        """Load the weights, optimizer state, counters and states of random generators from a checkpoint.

        Raises:
            BrokenCheckpoint: the checkpoint is damaged or incomplete, has another model or another optimizer than the
                stage, or its step is after the end of the stage.
        """
        from tfscale.checkpoint.stored import Stored  # slow to import, and not needed for a stage from scratch

        config, counters = checkpoint.read_state(folder)
        if config != self._spec.model:
            raise BrokenCheckpoint(f"{folder}: the model differs from the model in stage.yaml")
        if counters.step > self._spec.steps:
            raise BrokenCheckpoint(
                f"{folder}: the checkpoint is from step {counters.step}, but the stage has {self._spec.steps} steps"
            )
        stored = Stored(folder)
        there = stored.shapes()
        check_slots(folder, there, self._spec.optimizer, counters)
        stored.read(self._weights())
        self.optimizer.reset(counters.optimizer_step)
        stored.read(self.optimizer.state())
        random = {name: state for name, state in rng_tensors().items() if name in there}
        if random:  # growth writes no generator states; a grown stage starts from its seed
            stored.read(random)
            set_rng(random)
        self.counters = replace(counters, optimizer=self._spec.optimizer.name)

    def _weights(self) -> dict[str, Tensor]:
        return {f"model/{name}": parameter.detach() for name, parameter in self.model.named_parameters()}


def rng_tensors() -> dict[str, Tensor]:
    """Return the states of torch's random generators as tensors named `rng/cpu` and, if CUDA is available,
    `rng/cuda`."""
    states = {"rng/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng/cuda"] = torch.cuda.get_rng_state()
    return states


def set_rng(states: Mapping[str, Tensor]) -> None:
    """Set the states of torch's random generators to the tensors `rng/cpu` and, if present, `rng/cuda`. Raise
    BrokenCheckpoint if `rng/cpu` is missing or a state is invalid."""
    try:
        torch.set_rng_state(states["rng/cpu"])
        if "rng/cuda" in states:
            torch.cuda.set_rng_state(states["rng/cuda"])
    except (RuntimeError, LookupError) as error:
        raise BrokenCheckpoint(f"rng: {error}") from error
