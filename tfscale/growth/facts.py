"""What growth.json says of a growth beside what was measured: all that follows from the stages' specs."""

from dataclasses import asdict
from typing import Any

from tfscale.growth.recipe import GrowthRecipe, preserves
from tfscale.growth.transformer_recipe import TransformerGrowth, transformer_preserves
from tfscale.models.config import ModelConfig
from tfscale.models.counts import parameters
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.models.transformer import TransformerConfig
from tfscale.untrusted import check_fields

Recipe = GrowthRecipe | TransformerGrowth
_LAYERS = ("qkv", "out", "ffn")
_SHAPE = ("n_layer", "d_model", "n_head", "d_ff")


def read_recipe(values: dict[str, Any], model: ModelConfig) -> Recipe:
    """The recipe in the spec of a stage whose model has grown.

    Raises:
        TypeError, ValueError: it is none for such a model.
    """
    recipe = TransformerGrowth(**values) if isinstance(model, TransformerConfig) else GrowthRecipe(**values)
    check_fields(recipe)
    return recipe


def facts_of(recipe: Recipe, old: ModelConfig, new: ModelConfig) -> dict[str, Any]:
    """How the model has changed, and whether its function should have."""
    return {
        **_changes(old, new),
        "parameters": {"before": parameters(old), "after": parameters(new)},
        "preserving": is_preserving(recipe, old, new),
    }


def groups_of(new: ModelConfig) -> dict[str, Any]:
    """The groups of parameter tokens that a grown TokenFormer has."""
    if isinstance(new, TransformerConfig):
        return {}
    return {"groups": {name: [asdict(group) for group in getattr(new, name)] for name in _LAYERS}}


def is_preserving(recipe: Recipe, old: ModelConfig, new: ModelConfig) -> bool:
    """Whether the recipe leaves every logit as it was."""
    if isinstance(recipe, TransformerGrowth):
        assert isinstance(old, TransformerConfig)
        assert isinstance(new, TransformerConfig)
        return transformer_preserves(recipe, old, new)
    assert isinstance(old, TokenFormerConfig)
    assert isinstance(new, TokenFormerConfig)
    return preserves(recipe, old, new)


def divides(recipe: Recipe) -> bool:
    """Whether weights become parts of their parents', which float32 has to round."""
    return isinstance(recipe, TransformerGrowth) or recipe.new_keys == "split"


def _changes(old: ModelConfig, new: ModelConfig) -> dict[str, Any]:
    if isinstance(old, TokenFormerConfig) and isinstance(new, TokenFormerConfig):
        pairs = zip(_LAYERS, old.tokens, new.tokens, strict=True)
        return {"tokens": {name: {"before": before, "after": after} for name, before, after in pairs}}
    return {"shape": {name: {"before": getattr(old, name), "after": getattr(new, name)} for name in _SHAPE}}
