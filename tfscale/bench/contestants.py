"""Whole models in training, made alike: each one's step is what the training room does with it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tfscale.bench.reference import official, plain, written_out
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import Size
from tfscale.models.config import ModelConfig, TransformerConfig
from tfscale.models.counts import flops
from tfscale.models.init import build_model
from tfscale.training.optimizer import build_optimizer, clip_gradients
from tfscale.training.spec import OptimizerSpec

OURS, TRANSFORMER, GPT2, OFFICIAL, PLAIN = "ours", "Transformer", "GPT-2 (transformers)", "official", "plain eager"
CONTESTANTS = (OURS, TRANSFORMER, GPT2, OFFICIAL, PLAIN)
"""ours and Transformer: the models of this package, of equal parameters. GPT-2: Hugging Face's, of the Transformer's
shape. official: the TokenFormer with the official order of operations and whole logits. plain eager: the TokenFormer
as one writes it down, whole logits, and AdamW as torch gives it."""
OPTIMIZER = OptimizerSpec(lr=1e-4, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0)
Loss = Callable[[Tensor, Tensor], Tensor]
"""From inputs and targets to their mean loss."""
Clip = Callable[[nn.Module, float], float]
"""Clips a model's gradients to a norm, and gives the one that they had."""


class NotInstalled(Exception):
    """A library that a contestant needs is not there; the message says which."""


@dataclass(frozen=True)
class Contestant:
    """A model, its optimizer and a batch."""

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.AdamW
    clip: Clip
    batch: tuple[Tensor, Tensor]
    settings: Settings

    def step(self) -> float:
        """One step of training; its loss."""
        with self.settings.autocast():
            loss = self.loss(*self.batch)
        loss.backward()
        norm = self.clip(self.model, OPTIMIZER.clip)
        assert math.isfinite(norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    @property
    def parameters(self) -> int:
        """Weights."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def held(self) -> int:
        """Bytes of weights and moments."""
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        return sum(each.nbytes for each in (*self.model.parameters(), *moments))


def config_of(name: str, size: Size) -> ModelConfig:
    """The config whose FLOPs a contestant's are."""
    return size.transformer if name in (TRANSFORMER, GPT2) else size.tokenformer


def step_flops(name: str, size: Size) -> float:
    """Model FLOPs of a step, at the length that its sequences have."""
    config = config_of(name, size)
    counted = flops(config)
    attention = counted.attention * size.time // config.context
    return 3.0 * size.tokens * (counted.forward - counted.attention + attention)


def contestant(name: str, size: Size, settings: Settings) -> Contestant:
    """A contestant, ready to train.

    Raises:
        NotInstalled: its library is not there.
    """
    compiled = settings.device == "cuda"
    tokens = torch.randint(config_of(name, size).vocab_size, (size.sequences, size.time + 1), device=settings.device)
    batch = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    if name == GPT2:
        network = _gpt2(size.transformer, settings)
        return Contestant(network, _gpt2_loss(network), _fused(network), _usual_clip, batch, settings)
    if name in (OFFICIAL, PLAIN):
        written = written_out(size.tokenformer, official if name == OFFICIAL else plain, settings.device)
        usual = torch.optim.AdamW(written.parameters(), OPTIMIZER.lr)
        optimizer = build_optimizer(written, OPTIMIZER) if name == OFFICIAL else usual
        return Contestant(written, written.loss, optimizer, _usual_clip, batch, settings)
    model = build_model(config_of(name, size), seed=0, device=settings.device)
    if compiled:
        model.compile_parts()
    return Contestant(model, model.loss, build_optimizer(model, OPTIMIZER), clip_gradients, batch, settings)


def _usual_clip(model: nn.Module, limit: float) -> float:
    return torch.nn.utils.clip_grad_norm_(model.parameters(), limit).item()


def _gpt2(config: TransformerConfig, settings: Settings) -> nn.Module:
    try:
        from transformers import GPT2Config, GPT2LMHeadModel, logging
    except ImportError as error:
        raise NotInstalled(f"{GPT2}: the library transformers is not installed") from error
    logging.set_verbosity_error()  # it has words about special tokens, of which there are none
    shape = {"n_layer": config.n_layer, "n_embd": config.d_model, "n_head": config.n_head, "n_inner": config.d_ff}
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    length = {"vocab_size": config.vocab_size, "n_positions": config.context}
    with torch.device(settings.device):
        model: nn.Module = GPT2LMHeadModel(GPT2Config(**shape, **no_dropout, **length, use_cache=False))
    model.train()
    if settings.device == "cuda":
        model.compile()
    return model


def _gpt2_loss(model: nn.Module) -> Loss:
    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = model(input_ids=inputs, labels=inputs).loss  # it shifts its labels by itself
        return value

    return loss


def _fused(model: nn.Module) -> torch.optim.AdamW:
    betas = (OPTIMIZER.beta1, OPTIMIZER.beta2)
    return torch.optim.AdamW(model.parameters(), OPTIMIZER.lr, betas, OPTIMIZER.eps, OPTIMIZER.weight_decay, fused=True)
