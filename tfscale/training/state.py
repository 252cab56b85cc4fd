"""What a stage carries from step to step. All of it goes into a checkpoint and comes back."""

from pathlib import Path

import torch
from torch import Tensor

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint, Counters
from tfscale.models.init import build_model, init_weights
from tfscale.training.device import Device
from tfscale.training.optimizer import build_optimizer, moments, start_moments
from tfscale.training.spec import StageSpec


class StageState:
    """The model of a stage, its optimizer and its counters, at the beginning of the stage until something is loaded."""

    def __init__(self, spec: StageSpec, device: Device) -> None:
        self._spec = spec
        torch.manual_seed(spec.seed)  # torch seeds each process at random; nothing may depend on that
        self.model = build_model(spec.model, spec.seed, device.kind)
        self.optimizer = build_optimizer(self.model, spec.optimizer)
        self.counters = Counters()

    def reset(self) -> None:
        """Back to the beginning of a stage without a parent."""
        torch.manual_seed(self._spec.seed)
        init_weights(self.model, self._spec.seed)
        self.optimizer.state.clear()
        self.counters = Counters()

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of a checkpoint, by name."""
        return self._weights() | moments(self.model, self.optimizer) | checkpoint.rng_tensors()

    def load(self, folder: Path) -> None:
        """Takes over a checkpoint.

        Raises:
            BrokenCheckpoint: it is not one of this stage, or not whole.
        """
        config, counters = checkpoint.read_state(folder)
        if config != self._spec.model:
            raise BrokenCheckpoint(f"{folder}: holds another model than its stage.yaml")
        if counters.step > self._spec.steps:
            raise BrokenCheckpoint(f"{folder}: is {counters.step} steps old, and its stage has {self._spec.steps}")
        checkpoint.read(folder, self._weights())
        self.optimizer.state.clear()
        if counters.optimizer_step:
            start_moments(self.model, self.optimizer, counters.optimizer_step)
            checkpoint.read(folder, moments(self.model, self.optimizer))
        there = checkpoint.shapes(folder)
        random = {name: state for name, state in checkpoint.rng_tensors().items() if name in there}
        if random:  # growth writes none: a child's first step starts from its seed
            checkpoint.read(folder, random)
            checkpoint.set_rng(random)
        self.counters = counters

    def _weights(self) -> dict[str, Tensor]:
        return {f"model/{name}": parameter.detach() for name, parameter in self.model.named_parameters()}
