"""Growth of one tensor: pure functions from a weight, or a moment of AdamW, to the larger one."""

from functools import partial
from typing import Literal, assert_never

import torch
from torch import Tensor

from tfscale.growth.recipe import GrowthRecipe, copies_of_each
from tfscale.models.init import init_tensor, stream
from tfscale.models.parameter_tokens import Groups, layer_of, total
from tfscale.models.tokenformer import TokenFormerConfig

Role = Literal["weight", "exp_avg", "exp_avg_sq"]


def groups_of(name: str, config: TokenFormerConfig) -> Groups | None:
    """The parameter-token groups behind the rows of the weight `name`; None for a tensor that does not grow."""
    groups: dict[str | None, Groups] = {"qkv": config.qkv, "out": config.out, "ffn": config.ffn}
    return groups.get(layer_of(name))


def grow_tensor(
    name: str,
    role: Role,
    old: Tensor,
    parent: TokenFormerConfig,
    child: TokenFormerConfig,
    recipe: GrowthRecipe,
    seed: int,
) -> Tensor:
    """The grown tensor. Rows keep their order: each group's old rows (with their copies), then its new ones.

    Args:
        name: the weight's name in the model; a moment carries its weight's name.
        old: [n, d] of the parent; tensors that are not parameter tokens come back as they are.
        seed: new rows are a pure function of (seed, name).
    """
    before, after = groups_of(name, parent), groups_of(name, child)
    if before is None or after is None or before == after:
        return old
    copies = copies_of_each(before, total(after), recipe)
    part = _share(name, role, copies)
    share = old if part == 1 else old * part
    if copies == 1 and role == "weight":
        share = _noisy(share, f"{name}:from{len(old)}:old", recipe, seed)
    rows = []
    for segment in share.split([group.n for group in before]):
        rows += [segment] + [_copy(name, role, segment, recipe, seed, copy) for copy in range(1, copies)]
    missing = total(after) - copies * total(before)
    if missing:
        rows.append(_new_rows(name, role, old, missing, parent, recipe, seed))
    return torch.cat(rows)


def _share(name: str, role: Role, copies: int) -> float:
    # A copy's value is 1/q of the old one, so the gradient of its key is 1/q too and that of its value is the old one.
    if role == "weight":
        return 1 / copies if name.endswith(".values") else 1.0
    if name.endswith(".values"):
        return 1.0
    return 1 / copies if role == "exp_avg" else 1 / copies**2


def _copy(name: str, role: Role, segment: Tensor, recipe: GrowthRecipe, seed: int, copy: int) -> Tensor:
    if role != "weight":
        return torch.zeros_like(segment) if recipe.moments == "asymmetric" else segment
    return _noisy(segment, f"{name}:from{len(segment)}:copy{copy}", recipe, seed)


def _noisy(rows: Tensor, name: str, recipe: GrowthRecipe, seed: int) -> Tensor:
    if recipe.noise == 0:
        return rows
    noise = torch.randn(rows.shape, generator=stream(seed, name))
    return rows + (noise * (recipe.noise * rows.std().item())).to(rows.dtype)


def _new_rows(
    name: str, role: Role, old: Tensor, n: int, parent: TokenFormerConfig, recipe: GrowthRecipe, seed: int
) -> Tensor:
    shape = (n, old.shape[1])
    if role == "weight":
        how = recipe.new_keys if name.endswith(".keys") else recipe.new_values
        first_values = partial(init_tensor, name, shape, parent, seed, f":from{len(old)}")
        # The remainder of a split is the exact recipe: zero keys, random values.
        if how == "zero" or (how == "split" and name.endswith(".keys")):
            rows = torch.zeros(shape)
        elif how == "random" or how == "split":
            rows = first_values()
        elif how == "matched":
            rows = first_values() * (old.std().item() / parent.init_std(name))
        else:
            assert_never(how)
        return rows.to(old.dtype)
    if role == "exp_avg_sq" and recipe.new_second_moment == "mean":
        return old.mean(0, keepdim=True).expand(shape)
    return old.new_zeros(shape)
