"""Grow a model with a custom rule that places each new key between two old ones: `python examples/own_growth.py`."""

import torch
from grow_in_python import grow, small_model
from torch import Tensor

from tfscale.growth.tokenformer_recipe import GrowthRecipe
from tfscale.models.init import stream

GROUPED = GrowthRecipe("grouped", new_keys="random", new_values="zero", tau="group")


def place_between(name: str, old: Tensor, rows: Tensor, seed: int) -> None:
    """Set each new key of the grown weight `rows` [n', d] to the mean of two random keys of `old` [n, d]."""
    if name.endswith(".keys"):
        pairs = torch.randint(len(old), (2, len(rows) - len(old)), generator=stream(seed, name))
        rows[len(old) :] = old[pairs].mean(0)


def main() -> None:
    """Print the largest difference between logits, and the norms of the gradients of new and old values."""
    model, text = small_model(), torch.arange(128).view(2, 64)
    grown = grow(model, (60, 60, 240), GROUPED)
    for name, old in model.state_dict().items():
        place_between(name, old, grown.state_dict()[name], seed=1)
    print(f"largest logit difference {(grown(text) - model(text)).abs().max().item():.1e}")
    grown.loss(text[:, :-1], text[:, 1:]).backward()
    values = grown.blocks[0].ffn.values.grad
    print(
        f"gradient of the new values {values[64:].norm().item():.1e}, of the old ones {values[:64].norm().item():.1e}"
    )


if __name__ == "__main__":
    main()
