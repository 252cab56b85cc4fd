"""A growth operator of your own: each new key lies between two old ones. `python examples/own_growth.py` tries it."""

import torch
from grow_in_python import grow, small_model
from torch import Tensor

from tfscale.growth.tokenformer_recipe import GrowthRecipe
from tfscale.models.init import stream

GROUPED = GrowthRecipe("grouped", new_keys="random", new_values="zero", tau="group")


def place_between(name: str, old: Tensor, rows: Tensor, seed: int) -> None:
    """Put the new keys of a grown weight `rows` [n', d] into the middle of pairs of the keys of `old` [n, d]."""
    if name.endswith(".keys"):
        pairs = torch.randint(len(old), (2, len(rows) - len(old)), generator=stream(seed, name))
        rows[len(old) :] = old[pairs].mean(0)


def main() -> None:
    """Print what the growth changed, and the gradients from which the new tokens learn."""
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
