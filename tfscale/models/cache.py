"""Key-value cache for text generation. With the cache, each generated token requires a forward pass over only one
position."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from tfscale.models.config import ModelConfig

Extend = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor | None]]
"""Signature of `Past.extend` with a fixed layer. The attention of this layer calls the function with the keys and
values of new positions."""


class Past(Protocol):
    """Interface of a key-value cache for all layers of a model."""

    @property
    def length(self) -> int:
        """Number of positions whose keys and values are cached."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append the keys and the values of new positions, both [batch, head, time, head_dim], to the cache of a layer.
        Return the keys and the values of all positions, both cached and new, and the attention mask, [time, all] or
        [batch, 1, time, all], where `all` is the number of all positions. The mask is True where a new position attends
        to a cached or new position. The mask is None if every new position attends to all positions."""


def causal_mask(time: int, total: int, device: torch.device) -> Tensor:
    """Return the causal attention mask [time, total] for the last `time` of `total` positions."""
    return torch.ones(time, total, dtype=torch.bool, device=device).tril(total - time)


class Cache:
    """Key-value cache with a capacity of one context window. The memory of a layer is allocated when its first keys and
    values are added."""

    def __init__(self, config: ModelConfig) -> None:
        self._shape = (config.n_head, config.context, config.d_model // config.n_head)
        self._lengths = [0] * config.n_layer
        self._held: dict[int, Tensor] = {}

    @property
    def length(self) -> int:
        """Number of positions whose keys and values are cached."""
        return self._lengths[0]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append keys and values to the cache of a layer, as described in `Past.extend`."""
        begin, end = self._lengths[layer], self._lengths[layer] + keys.shape[2]
        assert end <= self._shape[1], "the caller must slide the window before it exceeds the context"
        if layer not in self._held:
            self._held[layer] = keys.new_empty(2, len(keys), *self._shape)
        held = self._held[layer][:, :, :, :end]
        held[0, :, :, begin:], held[1, :, :, begin:] = keys, values
        self._lengths[layer] = end
        return held[0], held[1], causal_mask(end - begin, end, keys.device) if end - begin > 1 else None
