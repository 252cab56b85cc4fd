"""Models for training benchmarks. A training step does the same work as in `tfscale run`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from tfscale.bench.settings import Settings
from tfscale.bench.sizes import Family, Size
from tfscale.models.config import ModelConfig
from tfscale.models.counts import flops, memory
from tfscale.models.execution import Execution, Recompute
from tfscale.models.init import build_model
from tfscale.optimizers.adamw import AdamW
from tfscale.optimizers.base import Optimizer
from tfscale.optimizers.muon import Muon
from tfscale.training.optimizer import ModelOptimizer, clip_gradients, gradient_norms

OPTIMIZER = AdamW(lr=1e-4, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0)
MUON = Muon(lr=1e-3, embedding_ratio=0.1, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0)


@dataclass(frozen=True)
class TrainedModel:
    """Model with an optimizer and a fixed batch."""

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    """Function that returns the mean loss for inputs and targets."""
    optimizer: ModelOptimizer | torch.optim.Optimizer
    batch: tuple[Tensor, Tensor]
    settings: Settings

    def step(self) -> float:
        """Run a training step and return the loss of the batch."""
        loss = self.compute_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def compute_gradients(self) -> float:
        """Compute and clip the gradients of the batch, and return the loss of the batch."""
        with self.settings.autocast():
            loss = self.loss(*self.batch)
        loss.backward()
        weights = dict(self.model.named_parameters())
        norm = gradient_norms(weights).total
        clip_gradients(weights, OPTIMIZER.clip, norm)
        assert norm.isfinite()
        return loss.item()

    def measure_update_share(self) -> float:
        """Return the fraction of the time of a training step that is spent in the update of the weights."""
        step = self.settings.take_turn(self.step)
        self.compute_gradients()
        update = self.settings.take_turn(self.optimizer.step)
        self.optimizer.zero_grad()
        return update / step


@dataclass(frozen=True)
class Entry:
    """Implementation of a model with an optimizer, which a training benchmark builds in several sizes."""

    name: str
    family: Family
    make: Callable[[ModelConfig, Size, Settings], TrainedModel]

    def config(self, size: Size) -> ModelConfig:
        """Return the config of the model for a size of the benchmark."""
        return size.tokenformer if self.family == "tokenformer" else size.transformer

    def build(self, size: Size, settings: Settings) -> TrainedModel:
        """Return a new model of the given size, with an optimizer and a batch."""
        return self.make(self.config(size), size, settings)

    def step_flops(self, size: Size) -> float:
        """Return the model FLOPs of a training step for a size of the benchmark, which determines the model and the
        shape of the batch."""
        config = self.config(size)
        counted = flops(config)
        attention = counted.attention * size.time // config.context
        return 3.0 * size.tokens * (counted.forward - counted.attention + attention)


def planned_memory(
    config: ModelConfig, sequences: int, device: str, recompute: Recompute = "none", kernels: bool = False
) -> int:
    """Return the memory in bytes that `tfscale.models.counts.memory` predicts for a training step with micro-batches of
    `sequences` sequences."""
    on_cuda = device == "cuda"
    execution = Execution(sequences, 2 if on_cuda else 4, recompute, device=device, compiled=on_cuda, kernels=kernels)
    return memory(config, execution).total


def make_batch(config: ModelConfig, size: Size, device: str) -> tuple[Tensor, Tensor]:
    """Return a batch of random tokens: inputs [sequences, time] and targets [sequences, time]."""
    tokens = torch.randint(config.vocab_size, (size.sequences, size.time + 1), device=device)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def make_product_model(
    config: ModelConfig, size: Size, settings: Settings, optimizer: Optimizer = OPTIMIZER
) -> TrainedModel:
    """Return a new model of tfscale, which is compiled on CUDA, with an optimizer and a random batch."""
    model = build_model(config, seed=0, device=settings.device)
    if settings.on_cuda:
        model.compile_parts()
    batch = make_batch(config, size, settings.device)
    return TrainedModel(model, model.loss, ModelOptimizer(model, optimizer, config), batch, settings)


OURS = Entry("ours", "tokenformer", make_product_model)
TRANSFORMER = Entry("Transformer", "transformer", make_product_model)
OURS_MUON = Entry("ours, Muon", "tokenformer", partial(make_product_model, optimizer=MUON))
TRANSFORMER_MUON = Entry("Transformer, Muon", "transformer", partial(make_product_model, optimizer=MUON))
