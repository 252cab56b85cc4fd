"""A training step as in `tfscale bench`, beside other implementations of the models.

GPT-2 (transformers)    Hugging Face's GPT-2 in the Transformer's shape
official                the TokenFormer with the official order of operations and whole logits
plain eager             the TokenFormer as one would write it down, whole logits, and AdamW with torch's defaults
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.elsewhere import Elsewhere, Turn
from benchmarks.pattention import official
from tfscale.bench import step
from tfscale.bench.contest import Contestant
from tfscale.bench.rows import Found
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import Size
from tfscale.bench.trained import OPTIMIZER, Entry, TrainedModel, make_batch
from tfscale.models.config import ModelConfig
from tfscale.models.cross_entropy import Reduction
from tfscale.models.init import init_weights
from tfscale.models.language_model import LanguageModel
from tfscale.models.parameter_tokens import Groups
from tfscale.models.pattention import Pattention, QKVPattention, plain_pattention
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.models.transformer import TransformerConfig
from tfscale.training.optimizer import ModelOptimizer

Projection = Callable[[Tensor, Tensor, Tensor, Groups], Tensor]
"""Computes y [..., d_out] from x [..., d_in], keys [n, d_in], values [n, d_out] and the groups."""


def measure(settings: Settings) -> Iterator[Found]:
    """Measure all sizes of the device."""
    return step.measure(settings, ENTRIES, _start)


def _start(entry: Entry, size: Size, settings: Settings) -> Contestant:
    """Start a contestant; other implementations run, on the CPU, as their users run them."""
    if settings.on_cuda or entry in step.ENTRIES:
        return step.start(entry, size, settings)
    process = Elsewhere(prepare_turn, entry, size, settings)
    figures = partial(step.measure_memory_apart, entry, size, settings)
    return Contestant(entry.name, process.turn, entry.step_flops(size), size.tokens, figures, process.close)


def prepare_turn(entry: Entry, size: Size, settings: Settings) -> Turn:
    """Make a model in this process."""
    settings.apply()
    return step.start(entry, size, settings).turn


def plain(x: Tensor, keys: Tensor, values: Tensor, groups: Groups) -> Tensor:
    """Pattention by its definition, with autograd's backward pass."""
    return plain_pattention(x, keys, values, groups, "l2_norm_gelu")


class WrittenOut(LanguageModel):
    """A TokenFormer with another function for its projections and with whole logits."""

    def __init__(self, config: TokenFormerConfig, projection: Projection) -> None:
        super().__init__(config)
        for parent in list(self.modules()):
            for name, child in parent.named_children():
                if isinstance(child, QKVPattention):
                    setattr(parent, name, _Projections(child, projection))
                elif isinstance(child, Pattention):
                    setattr(parent, name, _Projection(child, projection))

    def loss(self, tokens: Tensor, targets: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Compute the same as `LanguageModel.loss`."""
        return F.cross_entropy(self(tokens).flatten(0, 1).float(), targets.flatten(), reduction=reduction)


class _Projection(nn.Module):
    def __init__(self, pattention: Pattention, projection: Projection) -> None:
        super().__init__()
        self.keys, self.values = pattention.keys, pattention.values
        self._groups, self._projection = pattention.groups, projection

    def forward(self, x: Tensor) -> Tensor:
        return self._projection(x, self.keys, self.values, self._groups)


class _Projections(nn.Module):
    def __init__(self, qkv: QKVPattention, projection: Projection) -> None:
        super().__init__()
        self.query, self.key, self.value = (_Projection(part, projection) for part in (qkv.query, qkv.key, qkv.value))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.query(x), self.key(x), self.value(x)], dim=-2)


def write_out(config: ModelConfig, projection: Projection, device: str) -> WrittenOut:
    """Make such a TokenFormer with the first weights of ours."""
    assert isinstance(config, TokenFormerConfig)
    with torch.device(device):
        model = WrittenOut(config, projection)
    init_weights(model, seed=0)
    return model


def make_official(config: ModelConfig, size: Size, settings: Settings) -> TrainedModel:
    """Make the model `official`."""
    model = write_out(config, official, settings.device)
    batch = make_batch(config, size, settings.device)
    return TrainedModel(model, model.loss, ModelOptimizer(model, OPTIMIZER, config), batch, settings)


def make_plain(config: ModelConfig, size: Size, settings: Settings) -> TrainedModel:
    """Make the model `plain eager`."""
    model = write_out(config, plain, settings.device)
    optimizer = torch.optim.AdamW(model.parameters(), OPTIMIZER.lr)
    return TrainedModel(model, model.loss, optimizer, make_batch(config, size, settings.device), settings)


def make_gpt2(config: ModelConfig, size: Size, settings: Settings) -> TrainedModel:
    """Make the model `GPT-2 (transformers)`; compiled on CUDA."""
    from transformers import GPT2Config, GPT2LMHeadModel, logging

    assert isinstance(config, TransformerConfig)
    logging.set_verbosity_error()  # it warns about special tokens, of which there are none
    shape = {"n_layer": config.n_layer, "n_embd": config.d_model, "n_head": config.n_head, "n_inner": config.d_ff}
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    length = {"vocab_size": config.vocab_size, "n_positions": config.context}
    with torch.device(settings.device):
        model: nn.Module = GPT2LMHeadModel(GPT2Config(**shape, **no_dropout, **length, use_cache=False))
    model.train()
    if settings.on_cuda:
        model.compile()

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = model(input_ids=inputs, labels=inputs).loss  # it shifts its labels by itself
        return value

    betas = (OPTIMIZER.beta1, OPTIMIZER.beta2)
    optimizer = torch.optim.AdamW(
        model.parameters(), OPTIMIZER.lr, betas, OPTIMIZER.eps, OPTIMIZER.weight_decay, fused=True
    )
    return TrainedModel(model, loss, optimizer, make_batch(config, size, settings.device), settings)


GPT2 = Entry("GPT-2 (transformers)", "transformer", make_gpt2)
OFFICIAL = Entry("official", "tokenformer", make_official)
PLAIN = Entry("plain eager", "tokenformer", make_plain)
ENTRIES = (*step.ENTRIES, GPT2, OFFICIAL, PLAIN)
