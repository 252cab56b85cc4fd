"""Grow a model in memory and compare its logits before and after: `python examples/grow_in_python.py`."""

import torch

from tfscale.growth.tokenformer_recipe import GrowthRecipe
from tfscale.models.init import build_model
from tfscale.models.language_model import LanguageModel
from tfscale.models.parameter_tokens import TokenGroup, default_tau
from tfscale.models.tokenformer import TokenFormerConfig

EXACT = GrowthRecipe("exact", new_keys="zero", new_values="random", tau="keep")
PAPER = GrowthRecipe("paper", new_keys="random", new_values="random", tau="recompute")


def small_model() -> LanguageModel:
    """Build a model of two layers of width 32, with 16 parameter tokens in each of q, k, v and the output projection,
    and 64 in the feed-forward layer. `tfscale.checkpoint.load_model(folder)` loads a trained model instead."""
    qkv, out, ffn = ((TokenGroup(n, default_tau("l2_norm_gelu", n)),) for n in (16, 16, 64))
    config = TokenFormerConfig(n_layer=2, d_model=32, n_head=2, vocab_size=257, context=64, qkv=qkv, out=out, ffn=ffn)
    return build_model(config, seed=0).double()


def grow(model: LanguageModel, tokens: tuple[int, int, int], recipe: GrowthRecipe) -> LanguageModel:
    """Return a grown copy of the model, with `tokens` parameter tokens in (each of q, k, v; output; feed-forward)."""
    parent = model.config
    assert isinstance(parent, TokenFormerConfig)
    child = recipe.grown_config(parent, parent.with_tokens(tokens))
    rows = {name: recipe.grow_tensor(name, 0, old, parent, child, seed=1) for name, old in model.state_dict().items()}
    grown = build_model(child).double()
    grown.load_state_dict(rows)
    return grown


def main() -> None:
    """Print the largest difference between logits for a function-preserving recipe and for another one."""
    model, text = small_model(), torch.arange(128).view(2, 64)
    for recipe in (EXACT, PAPER):
        grown = grow(model, (60, 60, 240), recipe)
        sizes = [sum(each.numel() for each in one.parameters()) for one in (model, grown)]
        difference = (grown(text) - model(text)).abs().max().item()
        print(f"{recipe.name}: {sizes[0]:,} to {sizes[1]:,} parameters, largest logit difference {difference:.1e}")


if __name__ == "__main__":
    main()
