"""Registry of model families, and conversion of model configs to and from dictionaries."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tfscale.models.config import ModelConfig
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.models.transformer import TransformerConfig
from tfscale.registry import Registry

FAMILIES: Registry[type[ModelConfig]] = Registry("model.family", {})
for _family in (TokenFormerConfig, TransformerConfig):
    FAMILIES.register(_family.family)(_family)


def to_dict(config: ModelConfig) -> dict[str, Any]:
    """Return a model config as a dictionary for JSON, which `from_dict` converts back."""
    values = {"family": config.family, **asdict(config)}
    for name, standard in (("init", "official"), ("base_fan_in", None)):
        if values[name] == standard:
            del values[name]  # older versions did not write this field
    return values


def from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """Return the model config described by a dictionary from `to_dict`.

    Raises:
        ValueError: the family is unknown or a value is invalid.
        TypeError: a field is missing or unknown.
    """
    fields = dict(values)
    return FAMILIES.get(fields.pop("family", "")).from_fields(fields)
