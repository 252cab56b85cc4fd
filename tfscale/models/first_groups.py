"""Models that consist of only the first groups of parameter tokens of a TokenFormer that was grown by groups.

The weights of such a model are the first rows of the weights of the whole model. Immediately after a growth, the groups
that existed before the growth therefore form the parent model.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from tfscale.models.config import ModelConfig
from tfscale.models.tokenformer import TokenFormerConfig

if TYPE_CHECKING:
    from tfscale.models.language_model import LanguageModel


def number_of_groups(config: ModelConfig) -> int:
    """Return the number of groups in each layer. Return 1 if the model has no groups, or if the number differs between
    layers, because it is then unknown which groups were added by the same growth."""
    if not isinstance(config, TokenFormerConfig):
        return 1
    numbers = {len(config.qkv), len(config.out), len(config.ffn)}
    return numbers.pop() if len(numbers) == 1 else 1


def with_first_groups(config: ModelConfig, count: int) -> TokenFormerConfig:
    """Return the config of the model with only the first `count` groups of each layer. `count` must be from 1 to
    `number_of_groups(config)`."""
    assert isinstance(config, TokenFormerConfig)
    return replace(config, qkv=config.qkv[:count], out=config.out[:count], ffn=config.ffn[:count])


def first_groups_model(model: "LanguageModel", count: int) -> "LanguageModel":
    """Return the model with only the first `count` groups of each layer. The weights share memory with `model`."""
    from tfscale.models.init import build_model

    smaller = build_model(with_first_groups(model.config, count), device="meta")
    rows = {name: model.get_parameter(name)[: len(weight)] for name, weight in smaller.named_parameters()}
    smaller.load_state_dict(rows, assign=True)
    return smaller
