"""What a growth does, as named settings, and what follows from them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, assert_never

from tfscale.faults import Fault, InvalidInput
from tfscale.models.parameter_tokens import Groups, TokenGroup, default_tau
from tfscale.models.tokenformer import TokenFormerConfig


@dataclass(frozen=True)
class RateSettings:
    """Learning rates after a growth, apart for what the parent trained (its parameter tokens and all else) and for the
    new parameter tokens. Factors of the stage's own rate."""

    old: float = 1.0
    """Of what the parent trained, when the stage begins."""
    old_ramp: float = 0.0
    """Fraction of the stage over which `old` rises linearly to 1; 0: it stays."""
    frozen: float = 0.0
    """Fraction of the stage, from its beginning, in which what the parent trained stays as it is. TokenFormer's authors
    say that training it along is a little better and less stable (issue 15 of their repository)."""
    new: float = 1.0
    """Of the new tokens."""
    per_row_bias: bool = False
    """Whether AdamW's bias correction counts the steps of new rows from the growth, as for weights of their own; else
    the step count of the old rows holds for them too, and they begin with small steps."""

    def __post_init__(self) -> None:
        faults = [
            Fault(f"rates.{name}", value, rule, hint)
            for name, value, rule, hint, good in (
                ("old", self.old, "must be a factor, from 0 to 10", "1", 0 <= self.old <= 10),
                ("new", self.new, "must be a factor, above 0 and at most 100", "1", 0 < self.new <= 100),
                ("old_ramp", self.old_ramp, "must be a fraction, from 0 to 1", "0", 0 <= self.old_ramp <= 1),
                ("frozen", self.frozen, "must be a fraction, from 0 to 1", "0", 0 <= self.frozen <= 1),
            )
            if not good
        ]
        if self.old_ramp > 0 and self.old == 1:
            rule = "must be 0 with growth.rates.old=1, which leaves nothing to rise from"
            faults.append(Fault("rates.old_ramp", self.old_ramp, rule, reads=("rates.old",)))
        if faults:
            raise InvalidInput(*faults)


@dataclass(frozen=True)
class GrowthRecipe:
    """One way of adding parameter tokens and of going on after it. Every setting stands alone; `conf/growth/` holds
    the combinations that have names."""

    name: str
    new_keys: Literal["zero", "random", "matched", "split"]
    """`random`: as at initialisation (official code). `matched`: random, of the standard deviation that the layer's old
    keys have by now. `zero`: silent until trained (paper, Appendix B). `split`: every old token is copied as often as
    it fits; what remains gets zero keys."""
    new_values: Literal["zero", "random", "split"]
    """`split`: old values are divided among the copies; what remains gets random values."""
    tau: Literal["keep", "recompute", "group", "split"]
    """`keep`: the layer's tau stays. `recompute`: sqrt of the new count (official code). `group`: the new tokens get
    a norm and a tau of their own. `split`: tau grows with the copies (sqrt of their number)."""
    noise: float = 0.0
    """Standard deviation of noise, as a fraction of the layer's own. With a split it lies on the copies and breaks
    their symmetry; else on the old rows, as TokenFormer's authors advise (issue 11 of their repository). It ends
    exactness."""
    moments: Literal["carry", "drop", "asymmetric"] = "carry"
    """`drop`: AdamW starts empty (official code). `carry`: old rows keep their moments and step count. `asymmetric`:
    of a split, the copies start empty and the originals carry, which tells them apart without noise (SPARKLING,
    arXiv 2602.02472)."""
    new_second_moment: Literal["mean", "zero"] = "mean"
    """With carried moments, what new rows start from. `zero`: the bias correction of an old step count does not reach
    them, so their first update is (1 - beta1) / sqrt(1 - beta2) of a full one, whatever the gradient. `mean`: each
    column starts at the mean of the old rows, so new rows start gently and at the layer's own scale."""
    lr: Literal["rewarm", "continue"] = "rewarm"
    """Where the child's warm-up starts: at zero (official code) or at the parent's last learning rate."""
    data: Literal["continue", "restart"] = "continue"
    """Whether the child reads on where its parent stopped, or from the first batch again (official code)."""
    peak: float = 1.0
    """Peak learning rate of grown stages, as a factor of what the schedule says: a re-warm to a fraction."""
    rates: RateSettings = field(default_factory=RateSettings)

    def __post_init__(self) -> None:
        if faults := list(self._faults()):
            raise InvalidInput(*faults)

    def _faults(self) -> Iterator[Fault]:
        if self.new_keys == "zero" and self.new_values == "zero":
            yield Fault(
                "growth.new_keys",
                "zero",
                "makes dead tokens with growth.new_values=zero: neither would ever get a gradient",
                "random for one of them",
                reads=("growth.new_values",),
            )
        split = {f"growth.{name}": getattr(self, name) == "split" for name in ("new_keys", "new_values", "tau")}
        if any(split.values()) and not all(split.values()):
            yield Fault(
                "growth.new_keys",
                self.new_keys,
                "growth.new_keys, growth.new_values and growth.tau must be split together or not at all",
                reads=tuple(split),
            )
        if not 0 <= self.noise <= 10:
            yield Fault("growth.noise", self.noise, "must be a fraction of the layer's deviation, from 0 to 10", "0.01")
        if self.moments == "asymmetric" and not all(split.values()):
            rule = "must go with growth by split"
            yield Fault("growth.moments", self.moments, rule, "carry, which is the same without copies", tuple(split))
        if not 0 < self.peak <= 100:
            yield Fault("growth.peak", self.peak, "must be a factor, above 0 and at most 100", "1")
        if self.rates.per_row_bias and self.moments == "drop":
            rule = "must be false with growth.moments=drop, where all rows begin anew"
            yield Fault("growth.rates.per_row_bias", "true", rule, reads=("growth.moments",))

    def operator(self) -> dict[str, Any]:
        """What the growth itself does, as `recipe_from` reads it: all settings but those that the child's own
        learning rates hold."""
        return {name: value for name, value in vars(self).items() if name not in ("peak", "rates")}


def without_new_tokens(recipe: GrowthRecipe) -> GrowthRecipe:
    """What a recipe means for a stage that adds no tokens: its moments, learning rate and data. All recipes that agree
    on these are the same one."""
    return GrowthRecipe("none", "zero", "random", "keep", moments=recipe.moments, lr=recipe.lr, data=recipe.data)


Tokens = tuple[int, int, int]
"""Parameter tokens of (each of q, k, v; output projection; feed-forward)."""


def grow_config(parent: TokenFormerConfig, tokens: Tokens, recipe: GrowthRecipe) -> TokenFormerConfig:
    """The parent's config with `tokens` parameter tokens in its layers.

    Raises:
        ValueError: a count shrinks.
    """
    names = ("qkv", "out", "ffn")
    faults = [
        f"{name} tokens shrink from {old} to {new}"
        for name, old, new in zip(names, parent.tokens, tokens, strict=True)
        if new < old
    ]
    if faults:
        raise ValueError("; ".join(faults))
    qkv, out, ffn = (
        grow_groups(groups, new, recipe, parent.norm_activation)
        for groups, new in zip((parent.qkv, parent.out, parent.ffn), tokens, strict=True)
    )
    return replace(parent, qkv=qkv, out=out, ffn=ffn)


def grow_groups(groups: Groups, n: int, recipe: GrowthRecipe, kind: str) -> Groups:
    """The groups of one layer after it has grown to `n` parameter tokens. New tokens join the last group, or make a
    new one with `tau=group`."""
    added = n - sum(group.n for group in groups)
    if added == 0:
        return groups
    if recipe.tau == "group":
        return (*groups, TokenGroup(added, default_tau(kind, added)))
    copies = copies_of_each(groups, n, recipe)
    grown = [TokenGroup(group.n * copies, group.tau * default_tau(kind, copies)) for group in groups]
    last = grown[-1].n + n - sum(group.n for group in grown)
    if recipe.tau == "recompute":
        return (*grown[:-1], TokenGroup(last, default_tau(kind, last)))
    if recipe.tau == "keep" or recipe.tau == "split":
        return (*grown[:-1], TokenGroup(last, grown[-1].tau))
    assert_never(recipe.tau)


def copies_of_each(groups: Groups, n: int, recipe: GrowthRecipe) -> int:
    """How often each old token stands in the grown layer: 1 unless the recipe splits."""
    return n // sum(group.n for group in groups) if recipe.new_keys == "split" else 1


def preserves(recipe: GrowthRecipe, parent: TokenFormerConfig, child: TokenFormerConfig) -> bool:
    """Whether this growth leaves every logit as it was, up to rounding.

    Zero keys score zero, add nothing to the norm and GELU(0) = 0, so with a kept tau nothing changes (paper,
    Appendix B); exp(0) = 1, so a softmax cannot. A group with a norm of its own adds exactly its values' share: zero.
    q copies of a token multiply the L2 norm by sqrt(q) and the L1 norm by q; tau takes that back, and the values are
    divided by q.
    """
    if child == parent:
        return True
    if recipe.noise > 0:
        return False
    zero_keys_are_silent = parent.norm_activation != "softmax"
    if recipe.tau == "group":
        return recipe.new_values == "zero" or (recipe.new_keys == "zero" and zero_keys_are_silent)
    if recipe.new_keys == "split":
        remainder = any(new % old for old, new in zip(parent.tokens, child.tokens, strict=True))
        return zero_keys_are_silent or not remainder
    return recipe.new_keys == "zero" and recipe.tau == "keep" and zero_keys_are_silent
