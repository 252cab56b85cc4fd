"""Causal language model with tied embeddings and the blocks of a model family."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfscale.models.block import LAYER_NORM_EPS
from tfscale.models.cache import Past
from tfscale.models.checkpointing import checkpointed
from tfscale.models.config import ModelConfig
from tfscale.models.cross_entropy import Reduction, cross_entropy, token_losses
from tfscale.models.execution import Recompute
from tfscale.models.pattention import Pattention
from tfscale.models.rotary import rotary_table
from tfscale.models.tied_embedding import look_up


class LanguageModel(nn.Module):
    """Causal language model with tied embeddings. The function `tfscale.models.init.build_model` builds and initialises
    a model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        self.blocks = nn.ModuleList(config.build_block() for _ in range(config.n_layer))
        self.final_norm = nn.LayerNorm(config.d_model, eps=LAYER_NORM_EPS)
        self._recompute: Recompute = "none"
        self._fused_loss = False

    @property
    def recompute(self) -> Recompute:
        """Mode of activation checkpointing. Setting this property also configures every Pattention."""
        return self._recompute

    @recompute.setter
    def recompute(self, mode: Recompute) -> None:
        self._recompute = mode
        for layer in self._pattentions():
            layer.recompute = mode == "pattention"

    def use_kernels(self) -> None:
        """Enable this package's Triton kernels for the norm and GELU of every Pattention."""
        for layer in self._pattentions():
            layer.kernels = True

    def _pattentions(self) -> list[Pattention]:
        return [module for module in self.modules() if isinstance(module, Pattention)]

    @contextmanager
    def using_first_groups(self, count: int | None) -> Iterator[None]:
        """Return a context manager within which every Pattention uses only its first `count` groups, or all groups if
        `count` is None. The rows of the other groups get gradients of zero."""
        if count is None:  # setting an attribute would compile every block again
            yield
            return
        for layer in self._pattentions():
            layer.first = count
        try:
            yield
        finally:
            for layer in self._pattentions():
                layer.first = None

    def compile_parts(self) -> None:
        """Compile each block instead of the whole model, so that all blocks share one compilation, and fuse the
        element-wise operations of the loss. Each batch shape has its own compilation, because with symbolic shapes,
        kernels would be slower and would depend on the order in which shapes occurred."""
        for block in self.blocks:
            block.compile(dynamic=False)
        self._fused_loss = True

    def hidden(self, tokens: Tensor, past: Past | None = None, positions: Tensor | None = None) -> Tensor:
        """Return the hidden states [batch, time, d_model] of tokens [batch, time] after the final norm.

        Args:
            past: cache of the keys and values of preceding positions. The keys and values of the tokens are added to
                the cache.
            positions: positions of the tokens, [time] or [batch, time]. By default, the positions continue after those
                in `past`, or begin at 0 without a cache.
        """
        return self._hidden(F.embedding(tokens, self.embedding), past, positions)

    def _hidden(self, x: Tensor, past: Past | None = None, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            start = past.length if past else 0
            positions = torch.arange(start, start + x.shape[1], device=x.device)
        rotation = rotary_table(self.config, positions, x.dtype)
        for layer, block in enumerate(self.blocks):
            extend = partial(past.extend, layer) if past else None
            x = checkpointed(block, x, rotation, extend, when=self._recompute == "blocks")
        normed: Tensor = self.final_norm(x)
        return normed

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits [batch, time, vocab_size] of tokens [batch, time]."""
        return self.hidden(tokens) @ self.embedding.T

    def loss(self, tokens: Tensor, targets: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Return the cross-entropy in nats of the next tokens `targets` [batch, time], averaged or summed over the
        tokens."""
        x, embedding = look_up(tokens, self.embedding)
        return cross_entropy(self._hidden(x), embedding, targets, reduction, self._fused_loss)

    @torch.no_grad()
    def sequence_losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy [batch] of each sequence in nats, summed over its tokens, without gradients."""
        return token_losses(self.hidden(tokens), self.embedding, targets, self._fused_loss).sum(-1)
