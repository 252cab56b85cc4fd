"""Growth operator of TokenFormers, which adds parameter tokens, and its settings."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, assert_never

from tfscale.faults import Fault, InvalidInput
from tfscale.growth.operator import Growth
from tfscale.models.config import ModelConfig
from tfscale.models.parameter_tokens import Groups, TokenGroup, default_tau, layer_of, total
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.stage.spec import RateSpec

if TYPE_CHECKING:
    from torch import Tensor

LAYERS: tuple[Literal["qkv", "out", "ffn"], ...] = ("qkv", "out", "ffn")


@dataclass(frozen=True)
class RateSettings:
    """Learning rates after a growth, as factors of the stage's own learning rate: one for the weights that the parent
    trained (its parameter tokens and everything else) and one for the new parameter tokens."""

    old: float = 1.0
    """Learning-rate factor, at the beginning of the stage, of the weights that the parent trained."""
    old_ramp: float = 0.0
    """Fraction of the stage over which `old` rises linearly to 1; 0: `old` stays constant."""
    frozen: float = 0.0
    """Fraction of the stage, from its beginning, during which the weights that the parent trained are frozen. The
    authors of TokenFormer say that training them too is slightly better but less stable (issue 15 of their repository).
    """
    new: float = 1.0
    """Learning-rate factor of the new parameter tokens."""
    per_row_bias: bool = False
    """True if the bias correction of AdamW counts the steps of new rows from the growth; False if new rows share the
    step count of the old rows and begin with small steps."""

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
class GrowthRecipe(Growth):
    """Settings for growth by parameter tokens, which combine freely; `conf/growth/` has the named combinations."""

    kind: ClassVar[str] = "tokens"

    new_keys: Literal["zero", "random", "matched", "split"]
    """Keys of new tokens. `random`: as at initialisation (official code). `matched`: random, with the current standard
    deviation of the layer's old keys. `zero`: silent until trained (paper, Appendix B). `split`: every old token is
    copied as often as possible; the remaining tokens get zero keys."""
    new_values: Literal["zero", "random", "split"]
    """Values of new tokens. `zero`: zeros. `random`: as at initialisation. `split`: old values are divided among the
    copies; the remaining tokens get random values."""
    tau: Literal["keep", "recompute", "group", "split"]
    """Tau after the growth. `keep`: the layer's tau is unchanged. `recompute`: sqrt of the new count (official code).
    `group`: the new tokens get their own norm and tau. `split`: tau grows with the square root of the number of copies.
    """
    noise: float = 0.0
    """Standard deviation of noise, as a fraction of the layer's own. With a split, noise is added to the copies and
    breaks their symmetry; otherwise it is added to the old rows, as TokenFormer's authors advise (issue 11 of their
    repository). Growth with noise is not exact."""
    moments: Literal["carry", "drop", "asymmetric"] = "carry"
    """Optimizer state of the child. `drop`: starts empty (official code). `carry`: old rows keep their state and step
    count. `asymmetric`: the copies of a split start empty and the originals keep their state, which distinguishes them
    without noise (SPARKLING, arXiv 2602.02472)."""
    new_second_moment: Literal["mean", "zero"] = "mean"
    """Second moment of new rows if moments are carried. `zero`: the bias correction of an old step count does not apply
    to them, so their first update is (1 - beta1) / sqrt(1 - beta2) of a full update, whatever the gradient. `mean`:
    each column starts at the mean of the old rows, so new rows start gently and at the layer's own scale."""
    rates: RateSettings = field(default_factory=RateSettings, kw_only=True)

    def faults(self) -> Iterator[Fault | str]:
        yield from super().faults()
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
        if self.rates.per_row_bias and self.moments == "drop":
            rule = "must be false with growth.moments=drop, where all rows begin anew"
            yield Fault("growth.rates.per_row_bias", "true", rule, reads=("growth.moments",))

    @property
    def carries(self) -> bool:
        return self.moments != "drop"

    @property
    def rounds(self) -> bool:
        return self.new_keys == "split"

    @property
    def splits_rates(self) -> bool:
        return self.rates != RateSettings()

    @property
    def corrects_bias(self) -> bool:
        return self.rates.per_row_bias

    def key_settings(self) -> dict[str, Any]:
        settings = super().key_settings()
        del settings["rates"]  # they are part of the child's learning rates
        return settings

    def grown_config(self, parent: ModelConfig, target: ModelConfig) -> TokenFormerConfig:
        if not isinstance(parent, TokenFormerConfig) or not isinstance(target, TokenFormerConfig):
            raise ValueError(f"is of the family {parent.family}; only a TokenFormer grows by parameter tokens")
        shrunk = [
            f"{name} tokens shrink from {old} to {new}"
            for name, old, new in zip(LAYERS, parent.tokens, target.tokens, strict=True)
            if new < old
        ]
        if shrunk:
            raise ValueError("; ".join(shrunk))
        qkv, out, ffn = (
            grow_groups(getattr(parent, name), new, self, parent.norm_activation)
            for name, new in zip(LAYERS, target.tokens, strict=True)
        )
        return replace(parent, qkv=qkv, out=out, ffn=ffn)

    def preserves(self, parent: ModelConfig, child: ModelConfig) -> bool:
        """Return whether this growth leaves every logit unchanged, up to rounding.

        Zero keys have zero scores, which add nothing to the norm, and GELU(0) = 0, so with a kept tau nothing changes
        (paper, Appendix B); a softmax changes because exp(0) = 1. A group with its own norm adds only the contribution
        of its values, which is zero. q copies of a token multiply the L2 norm by sqrt(q) and the L1 norm by q; tau
        compensates for that, and the values are divided by q.
        """
        assert isinstance(parent, TokenFormerConfig)
        assert isinstance(child, TokenFormerConfig)
        if child == parent:
            return True
        if self.noise > 0:
            return False
        zero_keys_are_silent = parent.norm_activation != "softmax"
        if self.tau == "group":
            return self.new_values == "zero" or (self.new_keys == "zero" and zero_keys_are_silent)
        if self.new_keys == "split":
            remainder = any(new % old for old, new in zip(parent.tokens, child.tokens, strict=True))
            return zero_keys_are_silent or not remainder
        return self.new_keys == "zero" and self.tau == "keep" and zero_keys_are_silent

    def grow_tensor(
        self, name: str, degree: int, old: "Tensor", parent: ModelConfig, child: ModelConfig, seed: int
    ) -> "Tensor":
        """Return the grown tensor. Rows keep their order: the old rows of each group, followed by their copies, then
        the new rows. Tensors that are not parameter tokens are returned unchanged."""
        from torch import cat

        from tfscale.growth.rows import noisy, share_of_copies

        layer = layer_of(name)
        if layer is None or getattr(parent, layer) == getattr(child, layer):
            return old
        before, after = getattr(parent, layer), getattr(child, layer)
        copies = copies_of_each(before, total(after), self)
        share = share_of_copies(name, degree, copies)
        kept = old if share == 1 else old * share
        if copies == 1 and degree == 0:
            kept = noisy(kept, f"{name}:from{len(old)}:old", self.noise, seed)
        rows = []
        for segment in kept.split([group.n for group in before]):
            rows.append(segment)
            for copy in range(1, copies):
                if degree == 0:
                    rows.append(noisy(segment, f"{name}:from{len(segment)}:copy{copy}", self.noise, seed))
                else:
                    rows.append(segment if self.moments == "carry" else segment.new_zeros(segment.shape))
        missing = total(after) - copies * total(before)
        return cat([*rows, self.new_rows(name, degree, old, missing, child, seed)]) if missing else cat(rows)

    def new_rows(self, name: str, degree: int, old: "Tensor", n: int, child: ModelConfig, seed: int) -> "Tensor":
        """Return `n` new rows that are not copies. The remaining tokens of a split get zero keys and random values."""
        from tfscale.growth.rows import new_rows

        if degree == 2 and self.new_second_moment == "mean":
            return old.mean(0, keepdim=True).expand(n, old.shape[1])
        if degree > 0:
            return old.new_zeros((n, old.shape[1]))
        if name.endswith(".keys"):
            return new_rows("zero" if self.new_keys == "split" else self.new_keys, name, old, n, child, seed)
        return new_rows("random" if self.new_values == "split" else self.new_values, name, old, n, child, seed)

    def rates_of(self, parent: ModelConfig, child: ModelConfig, tokens: int) -> RateSpec | None:
        if not self.splits_rates:
            return None
        rates = self.rates
        qkv, out, ffn = (
            total(getattr(parent, name)) * copies_of_each(getattr(parent, name), total(getattr(child, name)), self)
            for name in LAYERS
        )
        return RateSpec(
            rows=(qkv, out, ffn),
            old=rates.old,
            old_ramp_tokens=round(rates.old_ramp * tokens),
            frozen_tokens=round(rates.frozen * tokens),
            new=rates.new,
            per_row_bias=rates.per_row_bias,
            new_second_moment=self.new_second_moment == "zero",
        )

    def changes(self, parent: ModelConfig, child: ModelConfig) -> dict[str, Any]:
        assert isinstance(parent, TokenFormerConfig)
        assert isinstance(child, TokenFormerConfig)
        pairs = zip(LAYERS, parent.tokens, child.tokens, strict=True)
        return {
            "tokens": {name: {"before": before, "after": after} for name, before, after in pairs},
            "groups": {name: [asdict(group) for group in getattr(child, name)] for name in LAYERS},
        }


def without_new_tokens(growth: Growth) -> GrowthRecipe:
    """Return a recipe that adds no tokens and handles optimizer state, learning rate and data as `growth` does. Growths
    that agree on these give equal recipes."""
    moments: Literal["carry", "drop"] = "carry" if growth.carries else "drop"
    return GrowthRecipe("none", "zero", "random", "keep", moments=moments, lr=growth.lr, data=growth.data)


def grow_groups(groups: Groups, n: int, recipe: GrowthRecipe, kind: str) -> Groups:
    """Return the groups of a layer after it has grown to `n` parameter tokens. New tokens join the last group, or form
    a new group with `tau=group`."""
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
    """Return how many times the grown layer contains each old token, which is 1 unless the recipe splits."""
    return n // sum(group.n for group in groups) if recipe.new_keys == "split" else 1
