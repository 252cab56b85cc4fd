"""Adapter from the cache, padding and packing of Hugging Face to the interface of the model's attention."""

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from tfscale.models.cache import causal_mask

CACHE_NAME = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
"""Name of the cache in the arguments and outputs of models in the installed release of transformers."""


class HeldPast:
    """Adapter that gives a Hugging Face cache and attention mask the interface `tfscale.models.cache.Past`."""

    def __init__(
        self, tokens: Tensor, cache: Cache | None, attention_mask: Tensor | None, position_ids: Tensor | None
    ) -> None:
        """Prepare the mask of the new tokens [batch, time]. If there is a cache, each layer appends its keys and values
        to the cache. The arguments `attention_mask` and `position_ids` are described in `TfscaleForCausalLM.forward`.

        Raises:
            ValueError: the `attention_mask` does not have one of the shapes that `forward` describes.
        """
        self.length = int(cache.get_seq_length()) if cache is not None else 0
        self._cache = cache
        self._time = tokens.shape[1]
        self._positions = torch.arange(self.length, self.length + self._time, device=tokens.device)
        self._pairs: Tensor | None = None
        self._mask: Tensor | None = None
        if attention_mask is None:
            if position_ids is not None and self.length == 0:
                self._pairs = _same_sequence(position_ids)
        elif attention_mask.ndim == 4:
            self._mask = attention_mask
        elif attention_mask.shape != (len(tokens), self.length + self._time):
            shape, total = tuple(attention_mask.shape), self.length + self._time
            raise ValueError(
                f"attention_mask: must have shape [{len(tokens)}, {total}], for {self.length} cached and {self._time} "
                f"new positions, but has shape {list(shape)}"
            )
        elif not bool(attention_mask.all()):
            self._pairs = attention_mask.bool()[:, None, None, :]

    @property
    def is_plain(self) -> bool:
        """True if there is no cache, padding or packing, so that attention requires only the causal mask."""
        return self._cache is None and self._pairs is None and self._mask is None

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append keys and values to the cache of a layer, as described in `Past.extend`. The returned keys and values
        may end with empty positions, which the mask excludes."""
        if self._cache is not None:
            # Newer releases of transformers count the positions themselves.
            keys, values = self._cache.update(keys, values, layer, {"cache_position": self._positions})
        total, filled = keys.shape[2], self.length + self._time
        if self._mask is None and (self._time > 1 or self._pairs is not None or total > filled):
            self._mask = self._seen(total, keys.device)
        return keys, values, self._mask

    def _seen(self, total: int, device: torch.device) -> Tensor:
        """Return a mask that is True where a new position attends to one of the `total` positions of the cache, as
        [time, total] or, with padding or packing, [batch, 1, time, total]."""
        filled = self.length + self._time
        seen = causal_mask(self._time, filled, device)
        if self._pairs is not None:
            # Padding attends to itself, because a softmax over nothing is non-finite.
            itself = torch.ones_like(seen).triu(self.length) & seen
            seen = (seen & self._pairs) | itself
        return torch.nn.functional.pad(seen, (0, total - filled))


def _same_sequence(position_ids: Tensor) -> Tensor | None:
    """Return a mask [batch, 1, time, time] that is True where two positions of a row belong to the same packed
    sequence, or None if no row has more than one sequence."""
    begins = position_ids.diff(dim=-1) != 1
    if not bool(begins.any()):
        return None
    sequence = torch.nn.functional.pad(begins.cumsum(-1), (1, 0))
    return (sequence[:, :, None] == sequence[:, None, :])[:, None]
