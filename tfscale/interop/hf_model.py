"""Hugging Face version of a tfscale model. `TfscaleForCausalLM` is a `PreTrainedModel` that contains the module that
tfscale trains.

An exported folder contains this file as `modeling_tfscale.py`, next to the modules that it imports.
"""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from tfscale.models.cache import causal_mask
from tfscale.models.config import ModelConfig
from tfscale.models.families import from_dict
from tfscale.models.init import init_tensor
from tfscale.models.language_model import LanguageModel

CACHE_NAME = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
"""Name of the cache in the arguments and outputs of models in the installed release of transformers."""
_IMPLIED = ("cache_position",)
"""Names of arguments that only older releases of transformers pass. The values of these arguments are ignored, because
the cache stores the positions."""


class TfscaleConfig(PreTrainedConfig):
    """Config of an exported model. The field `tfscale` contains the config of the tfscale model. The fields with
    Hugging Face names for sizes, such as `hidden_size`, are set from this config."""

    model_type = "tfscale"
    keys_to_ignore_at_inference = (CACHE_NAME,)

    tfscale: dict[str, Any] | None = None
    vocab_size: int = 0
    hidden_size: int = 0
    num_hidden_layers: int = 0
    num_attention_heads: int = 0
    max_position_embeddings: int = 0
    tie_word_embeddings: bool = True
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.tfscale is not None:
            model = self.model
            self.vocab_size, self.hidden_size = model.vocab_size, model.d_model
            self.num_hidden_layers, self.num_attention_heads = model.n_layer, model.n_head
            self.max_position_embeddings = model.context
        super().__post_init__(**kwargs)

    @property
    def model(self) -> ModelConfig:
        """Config of the tfscale model."""
        if self.tfscale is None:
            raise ValueError("the config has no field `tfscale`, which describes the model")
        return from_dict(self.tfscale)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of config.json, with `auto_map` only if the class was loaded from an exported folder."""
        values = dict(super().to_dict())
        if self._auto_class is None:
            values.pop("auto_map", None)
        return values


class TfscaleForCausalLM(PreTrainedModel, GenerationMixin):
    """TokenFormer or Transformer with a language-modeling head."""

    config_class = TfscaleConfig
    config: TfscaleConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _no_split_modules = ("Block",)
    _tied_weights_keys = {"lm_head.weight": "model.embedding"}  # noqa: RUF012

    def __init__(self, config: TfscaleConfig) -> None:
        super().__init__(config)
        self.model = LanguageModel(config.model)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: int | Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        """Return the logits [batch, time, vocab_size], the cache and, if requested, the hidden states. If there are
        `labels`, also return the loss. Positions with the label -100 do not contribute to the loss.

        Args:
            input_ids: new tokens [batch, time].
            attention_mask: mask [batch, all] of all positions (cached and new), which is 0 at padding on the left or
                right, or a mask [batch, 1, time, all] of pairs of a new position and any position.
            position_ids: positions [batch, time], which continue after the cached positions by default. If there is
                neither an `attention_mask` nor a filled cache, a position that does not follow the previous one begins
                another sequence, and the two sequences do not attend to each other.
            cache: keys and values of earlier tokens. Older releases of transformers call this argument
                `past_key_values`.
            num_items_in_batch: number by which the summed loss is divided, by default the number of its terms.
            logits_to_keep: number of last positions, or indices of positions, for which logits are computed; 0 for all
                positions.

        Raises:
            TypeError: an argument is unknown, or both `cache` and `past_key_values` are given.
            ValueError: `inputs_embeds` or `output_attentions` is set, which this model does not support, or
                `attention_mask` has another shape.
        """
        if unknown := [name for name in others if name not in _IMPLIED]:
            allowed = ", ".join(_arguments())
            raise TypeError(f"forward() got unexpected arguments: {', '.join(unknown)}; allowed: {allowed}")
        if cache is not None and past_key_values is not None:
            raise TypeError("forward(): cache and past_key_values are two names of one argument; pass only one")
        if inputs_embeds is not None:
            raise ValueError("inputs_embeds: must be None, because this model supports only input_ids")
        if output_attentions:
            raise ValueError("output_attentions: must be False, because this model does not return attention weights")
        held = cache if past_key_values is None else past_key_values
        keeps = use_cache if use_cache is not None else self.config.use_cache and not self.training
        if held is None and keeps:
            held = DynamicCache(config=self.config)
        past = _CacheAdapter(input_ids, held, attention_mask, position_ids)
        shows = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        with _block_inputs(self.model if shows else None) as states:
            hidden = self.model.hidden(input_ids, None if past.is_plain else past, position_ids)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else logits_to_keep
        logits = self.lm_head(hidden if isinstance(kept, int) else hidden[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, num_items_in_batch=num_items_in_batch)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, hidden_states=(*states, hidden) if shows else None, **{CACHE_NAME: held}
        )

    def get_input_embeddings(self) -> nn.Module:
        """Return an `nn.Embedding` that shares the embedding weights of the model. The output layer uses the same
        weights."""
        return nn.Embedding(self.config.vocab_size, self.config.hidden_size, _weight=self.model.embedding.detach())

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Raise a ValueError, because the size of the vocabulary is fixed."""
        raise ValueError("the vocabulary of a tfscale model is fixed; set model.vocab_size before training")

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the parameters of a module, except those of its submodules and those that have been loaded."""
        prefixes = [name for name, each in self.model.named_modules() if each is module]
        for prefix in prefixes:
            for name, parameter in module.named_parameters(prefix=prefix, recurse=False):
                if not getattr(parameter, "_is_hf_initialized", False):  # keeps loaded weights
                    first = init_tensor(name, tuple(parameter.shape), self.config.model, torch.initial_seed())
                    parameter.data.copy_(first)


def _arguments() -> list[str]:
    parameters = inspect.signature(TfscaleForCausalLM.forward).parameters
    return [name for name in parameters if name not in ("self", "others")] + ["return_dict"]


@contextmanager
def _block_inputs(model: LanguageModel | None) -> Iterator[list[Tensor]]:
    """Yield a list to which the input of each block is appended during a forward pass. If `model` is None, the list
    stays empty."""
    states: list[Tensor] = []
    with ExitStack() as hooks:
        for block in model.blocks if model is not None else ():
            hook = block.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
            hooks.callback(hook.remove)
        yield states


class _CacheAdapter:
    """Adapter that gives a Hugging Face cache and attention mask the interface `tfscale.models.cache.Past`."""

    def __init__(
        self, tokens: Tensor, cache: Cache | None, attention_mask: Tensor | None, position_ids: Tensor | None
    ) -> None:
        """Prepare the attention mask of the new tokens [batch, time]. The arguments `attention_mask` and `position_ids`
        are described in `TfscaleForCausalLM.forward`.

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
        return nn.functional.pad(seen, (0, total - filled))


def _same_sequence(position_ids: Tensor) -> Tensor | None:
    """Return a mask [batch, 1, time, time] that is True where two positions of a row belong to the same packed
    sequence, or None if no row has more than one sequence."""
    begins = position_ids.diff(dim=-1) != 1
    if not bool(begins.any()):
        return None
    sequence = nn.functional.pad(begins.cumsum(-1), (1, 0))
    return (sequence[:, :, None] == sequence[:, None, :])[:, None]
