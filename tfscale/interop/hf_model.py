"""The Hugging Face form of a model: `PreTrainedModel` around the same module that is trained.

An exported folder carries this file as `modeling_tfscale.py`, and what it imports beside it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from tfscale.models.cache import LayerPast, causal_mask
from tfscale.models.config import ModelConfig, from_dict
from tfscale.models.init import init_tensor
from tfscale.models.language_model import LanguageModel


class TfscaleConfig(PreTrainedConfig):
    """Config of an exported model. `tfscale` says what it is; all sizes that go by Hugging Face's names follow from
    it."""

    model_type = "tfscale"
    keys_to_ignore_at_inference = ("past_key_values",)

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
        """What the model is.

        Raises:
            ValueError: the config says it not, or wrongly.
        """
        if self.tfscale is None:
            raise ValueError("the config has no `tfscale`, which says what the model is")
        return from_dict(self.tfscale)

    def to_dict(self) -> dict[str, Any]:
        """For config.json. Only a class that came with the folder's own code points to code in a folder."""
        values = dict(super().to_dict())
        if self._auto_class is None:
            values.pop("auto_map", None)
        return values


class TfscaleForCausalLM(PreTrainedModel, GenerationMixin):
    """A TokenFormer, or the Transformer beside it, with the logits of the next token."""

    config_class = TfscaleConfig
    config: TfscaleConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
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
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [batch, time, vocab_size], and their loss against `labels`, in which -100 is not counted.

        Positions are relative, so padding on either side changes nothing as long as `attention_mask` [batch, time]
        says where it is; `position_ids` are not needed.
        """
        if kwargs.get("inputs_embeds") is not None:
            raise ValueError("inputs_embeds: this model takes input_ids")
        if (
            past_key_values is None
            and (self.config.use_cache if use_cache is None else use_cache)
            and not self.training
        ):
            past_key_values = DynamicCache(config=self.config)
        past = None
        if past_key_values is not None or _hides(attention_mask):
            past = _Past(self.model, past_key_values, attention_mask if _hides(attention_mask) else None)
        hidden = self.model.hidden(input_ids, past)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else logits_to_keep
        logits = self.lm_head(hidden if isinstance(kept, int) else hidden[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)

    def get_input_embeddings(self) -> nn.Module:
        """A view of the embedding, which is tied to the output's."""
        return nn.Embedding(self.config.vocab_size, self.config.hidden_size, _weight=self.model.embedding.detach())

    def get_output_embeddings(self) -> nn.Module:
        """The layer that makes logits."""
        return self.lm_head

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Not possible.

        Raises:
            ValueError: always.
        """
        raise ValueError("the vocabulary of a tfscale model is fixed; choose model.vocab_size when it is trained")

    def _init_weights(self, module: nn.Module) -> None:
        """First values of the parameters that a module of the model holds itself."""
        places = [name for name, each in self.model.named_modules() if each is module]
        for place in places:
            for name, parameter in module.named_parameters(prefix=place, recurse=False):
                if not getattr(parameter, "_is_hf_initialized", False):  # what has been loaded is left alone
                    first = init_tensor(name, tuple(parameter.shape), self.config.model, torch.initial_seed())
                    parameter.data.copy_(first)


def _hides(mask: Tensor | None) -> bool:
    return mask is not None and (mask.ndim == 4 or not bool(mask.all()))


class _Past:
    """Hugging Face's cache and padding, as the model's attention asks for them."""

    def __init__(self, model: LanguageModel, cache: Cache | None, mask: Tensor | None) -> None:
        self.length = int(cache.get_seq_length()) if cache is not None else 0
        self.layers: Sequence[LayerPast] = [_LayerPast(cache, number, mask) for number in range(len(model.blocks))]


class _LayerPast:
    def __init__(self, cache: Cache | None, number: int, mask: Tensor | None) -> None:
        self._cache, self._number, self._mask = cache, number, mask

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        time = keys.shape[2]
        if self._cache is not None:
            keys, values = self._cache.update(keys, values, self._number)
        total = keys.shape[2]
        if self._mask is None:
            return keys, values, causal_mask(time, total, keys.device) if time > 1 else None
        if self._mask.ndim == 4:
            return keys, values, self._mask
        seen = causal_mask(time, total, keys.device) & self._mask.bool()[:, None, None, :]
        # Padding sees itself: a row without anything to see would be no number.
        itself = torch.ones(time, total, dtype=torch.bool, device=keys.device).triu(total - time)
        return keys, values, seen | (itself & causal_mask(time, total, keys.device))
