"""Key-value cache for text generation. With the cache, each generated token requires a forward pass over only one
position."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tfscale.models.config import ModelConfig


class LayerPast(Protocol):
    """Cached keys and values of one attention layer."""

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append the keys and the values of new positions, both [batch, head, time, head_dim], to the cache. Return the
        keys and the values of all positions, and the attention mask, [time, all] or [batch, 1, time, all]. The mask is
        True where a new position attends to a cached or new position. It is None if every new position attends to all
        positions."""


class Past(Protocol):
    """Cached keys and values of all layers of a model."""

    @property
    def length(self) -> int:
        """Number of positions whose keys and values are cached."""

    @property
    def layers(self) -> Sequence[LayerPast]:
        """Cached keys and values of each block, in the order of the blocks."""


def causal_mask(time: int, total: int, device: torch.device) -> Tensor:
    """Return the causal attention mask [time, total] for the last `time` of `total` positions."""
    return torch.ones(time, total, dtype=torch.bool, device=device).tril(total - time)


class Cache:
    """Key-value cache with a capacity of one context window."""

    def __init__(self, config: ModelConfig) -> None:
        self.layers = [_LayerCache(config) for _ in range(config.n_layer)]

    @property
    def length(self) -> int:
        """Number of positions whose keys and values are cached."""
        return self.layers[0].length


class _LayerCache:
    def __init__(self, config: ModelConfig) -> None:
        self._shape = (config.n_head, config.context, config.d_model // config.n_head)
        self._held: Tensor | None = None
        self.length = 0

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        time = keys.shape[2]
        if self._held is None:
            self._held = keys.new_empty(2, len(keys), *self._shape)
        assert self.length + time <= self._shape[1], "the caller must slide the window before it exceeds the context"
        self._held[0, :, :, self.length : self.length + time] = keys
        self._held[1, :, :, self.length : self.length + time] = values
        self.length += time
        held = self._held[:, :, :, : self.length]
        return held[0], held[1], causal_mask(time, self.length, keys.device) if time > 1 else None
