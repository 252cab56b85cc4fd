"""What a model has read, kept as keys and values, so that the next token costs one position instead of all of them."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tfscale.models.config import ModelConfig


class LayerPast(Protocol):
    """The positions that one layer's attention has seen."""

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Adds new positions, [batch, head, time, head_dim].

        Returns:
            Keys and values of all positions, and the mask between the new ones and all, true where one is seen: [time,
            all] or [batch, 1, time, all]; None where every new one sees all.
        """


class Past(Protocol):
    """The positions that a model has seen."""

    @property
    def length(self) -> int:
        """How many."""

    @property
    def layers(self) -> Sequence[LayerPast]:
        """One of each block."""


def causal_mask(time: int, total: int, device: torch.device) -> Tensor:
    """True where one of the last `time` positions sees one of all `total`: itself and those before it."""
    return torch.ones(time, total, dtype=torch.bool, device=device).tril(total - time)


class Cache:
    """Room for one context of positions, filled from its beginning."""

    def __init__(self, config: ModelConfig) -> None:
        self.layers = [_LayerCache(config) for _ in range(config.n_layer)]

    @property
    def length(self) -> int:
        """Positions that are held."""
        return self.layers[0].length


class _LayerCache:
    def __init__(self, config: ModelConfig) -> None:
        self._room = (config.n_head, config.context, config.d_model // config.n_head)
        self._held: Tensor | None = None
        self.length = 0

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        time = keys.shape[2]
        if self._held is None:
            self._held = keys.new_empty(2, len(keys), *self._room)
        assert self.length + time <= self._room[1], "whoever reads beyond the context slides the window first"
        self._held[0, :, :, self.length : self.length + time] = keys
        self._held[1, :, :, self.length : self.length + time] = values
        self.length += time
        held = self._held[:, :, :, : self.length]
        return held[0], held[1], causal_mask(time, self.length, keys.device) if time > 1 else None
