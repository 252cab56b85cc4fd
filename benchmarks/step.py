"""Benchmark of a training step, as in `tfscale bench`, with these additional implementations of the models.

GPT-2 (transformers)    GPT-2 of Hugging Face with the shape of the Transformer
official                TokenFormer with the official order of operations and whole logits
plain eager             TokenFormer by its definition, with whole logits and AdamW with the defaults of torch
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.pattention import official
from benchmarks.turn_process import Turn, TurnProcess
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
"""Function that returns y [..., d_out] for x [..., d_in], keys [n, d_in], values [n, d_out] and the groups."""


def measure(settings: Settings) -> Iterator[Found]:
    """Measure all sizes that are defined for the device."""
    return step.measure(settings, ENTRIES, _start)


def _start(entry: Entry, size: Size, settings: Settings) -> Contestant:
    """Return a contestant. On the CPU, implementations from outside tfscale run in a process with the default allocator
    settings."""
    if settings.on_cuda or entry in step.ENTRIES:
        return step.start(entry, size, settings)
    process = TurnProcess(prepare_turn, entry, size, settings)
    figures = partial(step.measure_memory_apart, entry, size, settings)
    return Contestant(entry.name, process.turn, entry.step_flops(size), size.tokens, figures, process.close)


def prepare_turn(entry: Entry, size: Size, settings: Settings) -> Turn:
    """Create the contestant in this process and return the function that takes a turn."""
    settings.apply()
    return step.start(entry, size, settings).turn


def plain(x: Tensor, keys: Tensor, values: Tensor, groups: Groups) -> Tensor:
    """Return the output of Pattention, computed by the definition and differentiated by autograd."""
    return plain_pattention(x, keys, values, groups, "l2_norm_gelu")


class ReferenceModel(LanguageModel):
    """TokenFormer with a given function for its projections, and with the logits of all tokens in one tensor."""

    def __init__(self, config: TokenFormerConfig, projection: Projection) -> None:
        super().__init__(config)
        for parent in list(self.modules()):
            for name, child in parent.named_children():
                if isinstance(child, QKVPattention):
                    setattr(parent, name, _Projections(child, projection))
                elif isinstance(child, Pattention):
                    setattr(parent, name, _Projection(child, projection))

    def loss(self, tokens: Tensor, targets: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Return the same loss as `LanguageModel.loss`."""
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


def build_reference(config: ModelConfig, projection: Projection, device: str) -> ReferenceModel:
    """Build a reference model with the same initial weights as `build_model(config, seed=0)`."""
    assert isinstance(config, TokenFormerConfig)
    with torch.device(device):
        model = ReferenceModel(config, projection)
    init_weights(model, seed=0)
    return model


def make_official(config: ModelConfig, size: Size, settings: Settings) -> TrainedModel:
    """Build the model `official` with its optimizer."""
    model = build_reference(config, official, settings.device)
    batch = make_batch(config, size, settings.device)
    return TrainedModel(model, model.loss, ModelOptimizer(model, OPTIMIZER, config), batch, settings)


def make_plain(config: ModelConfig, size: Size, settings: Settings) -> TrainedModel:
    """Build the model `plain eager` with its optimizer."""
    model = build_reference(config, plain, settings.device)
    optimizer = torch.optim.AdamW(model.parameters(), OPTIMIZER.lr)
    return TrainedModel(model, model.loss, optimizer, make_batch(config, size, settings.device), settings)


def make_gpt2(config: ModelConfig, size: Size, settings: Settings) -> TrainedModel:
    """Build the model `GPT-2 (transformers)` with its optimizer. It is compiled on CUDA."""
    from transformers import GPT2Config, GPT2LMHeadModel, logging

    assert isinstance(config, TransformerConfig)
    logging.set_verbosity_error()  # GPT-2 warns about special tokens, which are not used here
    shape = {"n_layer": config.n_layer, "n_embd": config.d_model, "n_head": config.n_head, "n_inner": config.d_ff}
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    length = {"vocab_size": config.vocab_size, "n_positions": config.context}
    with torch.device(settings.device):
        model: nn.Module = GPT2LMHeadModel(GPT2Config(**shape, **no_dropout, **length, use_cache=False))
    model.train()
    if settings.on_cuda:
        model.compile()

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = model(input_ids=inputs, labels=inputs).loss  # GPT-2 shifts the labels itself
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
