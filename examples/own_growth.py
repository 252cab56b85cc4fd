"""A growth operator of your own: each new key lies between two old ones. `python examples/own_growth.py` tries it."""

import torch
from grow_in_python import small_model
from torch import Tensor

from tfscale.growth.tokenformer_recipe import GrowthRecipe
from tfscale.models.init import build_model, stream
from tfscale.models.tokenformer import TokenFormerConfig

GROUPED = GrowthRecipe("grouped", new_keys="random", new_values="zero", tau="group")


def between(name: str, old: Tensor, rows: Tensor, seed: int) -> Tensor:
    """The grown weight `rows` [n', d] of `old` [n, d], with its new keys in the middle of pairs of old ones."""
    if name.endswith(".keys"):
        pairs = torch.randint(len(old), (2, len(rows) - len(old)), generator=stream(seed, name))
        rows[len(old) :] = old[pairs].mean(0)
    return rows


def main() -> None:
    """Prints what the growth changed, and whether the new tokens have something to learn from."""
    model, text = small_model(), torch.arange(128).view(2, 64)
    parent = model.config
    assert isinstance(parent, TokenFormerConfig)
    child = GROUPED.grown_config(parent, parent.with_tokens((60, 60, 240)))
    grown = build_model(child).double()
    for name, old in model.state_dict().items():
        rows = GROUPED.grow_tensor(name, 0, old, parent, child, seed=1)
        grown.state_dict()[name].copy_(between(name, old, rows, seed=1))
    print(f"largest logit difference {(grown(text) - model(text)).abs().max().item():.1e}")
    grown.loss(text[:, :-1], text[:, 1:]).backward()
    values = grown.blocks[0].ffn.values.grad
    print(
        f"gradient of the new values {values[64:].norm().item():.1e}, of the old ones {values[:64].norm().item():.1e}"
    )


if __name__ == "__main__":
    main()
