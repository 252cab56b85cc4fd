"""Growth operator that adds parameter tokens to a TokenFormer."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, assert_never

from tfscale.faults import Fault, InvalidInput
from tfscale.growth.operator import Growth
from tfscale.models.config import ModelConfig
from tfscale.models.parameter_tokens import Groups, TokenGroup, default_tau, layer_of, total
from tfscale.models.tokenformer import TokenFormerConfig, number_of_groups
from tfscale.ranges import Probability
from tfscale.stage.spec import RateSpec

if TYPE_CHECKING:
    from torch import Tensor

LAYERS: tuple[Literal["qkv", "out", "ffn"], ...] = ("qkv", "out", "ffn")


@dataclass(frozen=True)
class RateSettings:
    """Learning rates after a growth, as multiples of the stage's learning rate. There is one factor for the old
    weights, which the parent trained, and another factor for the new parameter tokens."""

    old: float = 1.0
    """Learning-rate factor of the old weights at the beginning of the stage."""
    old_ramp: float = 0.0
    """Fraction of the stage during which the factor of the old weights changes linearly from `old` to 1. 0: the factor
    is always `old`."""
    frozen: float = 0.0
    """Fraction of the stage, from its beginning, during which the old weights are frozen. According to the authors of
    TokenFormer, training the old weights as well is slightly better but less stable (issue 15 of their repository)."""
    new: float = 1.0
    """Learning-rate factor of the new parameter tokens."""
    new_ramp: float = 0.0
    """Fraction of the stage during which the factor of the new parameter tokens changes linearly from 1 to `new`. The
    factor then returns linearly to 1 over an equal fraction of the stage. 0: the factor is always `new`."""
    per_row_bias: bool = False
    """True if the bias correction of AdamW for new rows counts only the steps since the growth. False if new rows have
    the step count of the old rows, which makes the first updates of the new rows small."""

    def __post_init__(self) -> None:
        faults = [
            Fault(f"rates.{name}", value, rule, hint)
            for name, value, rule, hint, good in (
                ("old", self.old, "must be a factor from 0 to 10", "1", 0 <= self.old <= 10),
                ("new", self.new, "must be a factor above 0 and at most 100", "1", 0 < self.new <= 100),
                ("old_ramp", self.old_ramp, "must be a fraction from 0 to 1", "0", 0 <= self.old_ramp <= 1),
                ("new_ramp", self.new_ramp, "must be a fraction from 0 to 0.5", "0.25", 0 <= self.new_ramp <= 0.5),
                ("frozen", self.frozen, "must be a fraction from 0 to 1", "0", 0 <= self.frozen <= 1),
            )
            if not good
        ]
        for rows in ("old", "new"):
            ramp = getattr(self, f"{rows}_ramp")
            if ramp > 0 and getattr(self, rows) == 1:
                rule = f"must be 0 with growth.rates.{rows}=1, because the factor is already 1"
                faults.append(Fault(f"rates.{rows}_ramp", ramp, rule, reads=(f"rates.{rows}",)))
        if faults:
            raise InvalidInput(*faults)


@dataclass(frozen=True)
class GrowthRecipe(Growth):
    """Settings for growth by adding parameter tokens. `conf/growth/` contains named combinations of these settings."""

    kind: ClassVar[str] = "tokens"

    new_keys: Literal["zero", "random", "matched", "split"]
    """Keys of new tokens. `random`: as at initialisation (official code). `matched`: random, with the current standard
    deviation of the layer's old keys. `zero`: zeros, so new tokens have no effect until they are trained (paper,
    Appendix B). `split`: each old token is replaced by the same number of copies, as many as fit in the new number of
    tokens. The remaining tokens get zero keys."""
    new_values: Literal["zero", "random", "matched", "split"]
    """Values of new tokens. `zero`: zeros. `random`: as at initialisation. `matched`: random, with the current standard
    deviation of the layer's old values. `split`: each old value is divided equally among the copies of its token, and
    the remaining tokens get random values."""
    tau: Literal["keep", "recompute", "group", "split"]
    """Tau after the growth. `keep`: the layer's tau is unchanged. `recompute`: the default tau for the new number of
    tokens, which is the square root of this number for an L2 norm (official code). `group`: the new tokens form a group
    with a separate norm and tau. `split`: if each token is replaced by q copies, tau is multiplied by sqrt(q) for an L2
    norm, and by q for an L1 norm."""
    noise: float = 0.0
    """Standard deviation of added noise, as a fraction of the standard deviation of the layer's weights. With a split,
    noise is added to the copies to break their symmetry; otherwise, noise is added to the old rows, as the authors of
    TokenFormer advise (issue 11 of their repository). Growth with noise changes the logits."""
    moments: Literal["carry", "drop", "asymmetric"] = "carry"
    """Optimizer state of the child. `drop`: the state starts empty (official code). `carry`: old rows keep their state
    and step count. `asymmetric`: with a split, the copies start with an empty state, and the originals keep their
    state. This difference breaks the symmetry between copies and originals without noise (SPARKLING, arXiv
    2602.02472)."""
    new_second_moment: Literal["mean", "zero"] = "mean"
    """Second moment of new rows if moments are carried. `zero`: zeros. Because the bias correction uses the old step
    count, the first update is then (1 - beta1) / sqrt(1 - beta2) of a full update, regardless of the gradient. `mean`:
    the mean of the old rows in each column, so that the first updates are small and have the scale of the layer.
    Matrices that Muon updates have no second moment."""
    rates: RateSettings = field(default_factory=RateSettings, kw_only=True)
    nested_dropout: Probability = field(default=0.0, kw_only=True)
    """Probability with which a training step of the child uses only the first groups of parameter tokens. The number of
    groups is drawn uniformly from 1 to the total number minus 1. Nested dropout improves the smaller models that
    consist of only the first groups (`tfscale eval --groups`). Requires tau=group and launcher.compile=off."""

    def faults(self) -> Iterator[Fault | str]:
        yield from super().faults()
        if self.new_keys == "zero" and self.new_values == "zero":
            rule = "must not be zero with growth.new_values=zero, because the new tokens would never get a gradient"
            hint, reads = "random for one of the two", ("growth.new_values",)
            yield Fault("growth.new_keys", "zero", rule, hint, reads)
        split = {f"growth.{name}": getattr(self, name) == "split" for name in ("new_keys", "new_values", "tau")}
        if any(split.values()) and not all(split.values()):
            rule = "must be split if and only if growth.new_values and growth.tau are split"
            yield Fault("growth.new_keys", self.new_keys, rule, reads=tuple(split))
        if not 0 <= self.noise <= 10:
            rule = "must be a fraction of the layer's standard deviation from 0 to 10"
            yield Fault("growth.noise", self.noise, rule, "0.01")
        if self.moments == "asymmetric" and not all(split.values()):
            rule = "must be used with growth by split"
            yield Fault("growth.moments", self.moments, rule, "carry, which is equivalent without copies", tuple(split))
        if self.nested_dropout and self.tau != "group":
            rule = "must be 0 unless growth.tau=group, because only growth.tau=group adds groups"
            yield Fault("growth.nested_dropout", self.nested_dropout, rule, "growth=grouped", reads=("growth.tau",))
        if self.rates.per_row_bias and self.moments == "drop":
            rule = "must be false with growth.moments=drop, where all rows have the same step count"
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
        del settings["rates"], settings["nested_dropout"]  # separate fields of the spec
        return settings

    def grown_config(self, parent: ModelConfig, target: ModelConfig) -> TokenFormerConfig:
        if not isinstance(parent, TokenFormerConfig) or not isinstance(target, TokenFormerConfig):
            raise ValueError(
                f"the model is of the family {parent.family}, but only a TokenFormer can grow by parameter tokens"
            )
        shrunk = [
            f"the number of {name} tokens would shrink from {old} to {new}"
            for name, old, new in zip(LAYERS, parent.tokens, target.tokens, strict=True)
            if new < old
        ]
        if shrunk:
            raise ValueError("; ".join(shrunk))
        qkv, out, ffn = (
            grow_groups(getattr(parent, name), new, self, parent.norm_activation)
            for name, new in zip(LAYERS, target.tokens, strict=True)
        )
        child = replace(parent, qkv=qkv, out=out, ffn=ffn)
        if self.nested_dropout and number_of_groups(child) == 1:
            raise ValueError("the model must grow in every layer, because growth.nested_dropout drops whole groups")
        return child

    def preserves(self, parent: ModelConfig, child: ModelConfig) -> bool:
        """Return True if this growth preserves all logits up to rounding.

        Zero keys have zero scores, which do not change the norm, and GELU(0) = 0, so with the old tau the output does
        not change (paper, Appendix B). A softmax changes, because exp(0) = 1. A group with its own norm contributes
        nothing if its values are zero. If tokens are split into q copies, the L2 norm is multiplied by sqrt(q) and the
        L1 norm by q; tau is multiplied by the same factor, and the values are divided by q.
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
        """Return the grown tensor. With a split, the old rows of each group are followed by their copies. New rows that
        are not copies come last. A tensor that does not grow is returned unchanged."""
        from torch import cat

        layer = layer_of(name)
        if layer is None or getattr(parent, layer) == getattr(child, layer):
            return old
        before, after = getattr(parent, layer), getattr(child, layer)
        copies = copies_of_each(before, total(after), self)
        share = _share_of_copies(name, degree, copies)
        kept = old if share == 1 else old * share
        if copies == 1 and degree == 0:
            kept = _noisy(kept, f"{name}:from{len(old)}:old", self.noise, seed)
        rows = []
        for segment in kept.split([group.n for group in before]):
            rows.append(segment)
            for copy in range(1, copies):
                if degree == 0:
                    rows.append(_noisy(segment, f"{name}:from{len(segment)}:copy{copy}", self.noise, seed))
                else:
                    rows.append(segment if self.moments == "carry" else segment.new_zeros(segment.shape))
        missing = total(after) - copies * total(before)
        return cat([*rows, self.new_rows(name, degree, old, missing, child, seed)]) if missing else cat(rows)

    def new_rows(self, name: str, degree: int, old: "Tensor", n: int, child: ModelConfig, seed: int) -> "Tensor":
        """Return `n` new rows [n, d] that are not copies. With a split, these rows belong to the tokens that remain
        after copying, which have zero keys and random values. New rows of optimizer slots are zero or, for a second
        moment with `new_second_moment=mean`, the mean of the old rows."""
        from tfscale.models.init import init_tensor

        shape = (n, old.shape[1])
        if degree == 2 and self.new_second_moment == "mean":
            return old.mean(0, keepdim=True).expand(shape)
        keys = name.endswith(".keys")
        rule = self.new_keys if keys else self.new_values
        if rule == "split":
            rule = "zero" if keys else "random"
        if degree > 0 or rule == "zero":
            return old.new_zeros(shape)
        rows = init_tensor(name, shape, child, seed, f":from{len(old)}")
        if rule == "matched":
            rows *= old.std().item() / child.initial_std(name)
        return rows.to(old.dtype)

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
            new_ramp_tokens=round(rates.new_ramp * tokens),
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
    """Return a recipe that adds no tokens, for an arm that continues the training of a model without growth. `lr` and
    `data` are those of `growth`. `moments` is `carry` if `growth` carries the optimizer state over, and `drop`
    otherwise. Operators that agree in these three settings give equal recipes."""
    moments: Literal["carry", "drop"] = "carry" if growth.carries else "drop"
    return GrowthRecipe("none", "zero", "random", "keep", moments=moments, lr=growth.lr, data=growth.data)


def grow_groups(groups: Groups, n: int, recipe: GrowthRecipe, kind: str) -> Groups:
    """Return the groups of a layer after a growth to `n` parameter tokens. With a split, the copies of a token belong
    to the group of the token. New tokens that are not copies are added to the last group or, with `tau=group`, form a
    new group. `kind` is the norm activation of the layer."""
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


def _share_of_copies(name: str, degree: int, copies: int) -> float:
    """Return the factor that scales the row of a parameter token in a weight or optimizer slot if `copies` copies
    replace the token.

    The value of each of q copies is 1/q of the old value. The gradient of each key is therefore 1/q of the old
    gradient, and the gradient of each value is unchanged. `degree` is defined in `Growth.grow_tensor`.
    """
    divided = name.endswith(".values") if degree == 0 else name.endswith(".keys")
    return 1 / copies ** max(1, degree) if divided else 1.0


def _noisy(rows: "Tensor", name: str, noise: float, seed: int) -> "Tensor":
    """Return the rows plus random noise, whose standard deviation is `noise` times the standard deviation of the rows.
    The random numbers depend only on `seed`, `name` and the shape of the rows."""
    from torch import randn

    from tfscale.models.init import stream

    if noise == 0:
        return rows
    drawn = randn(rows.shape, generator=stream(seed, name))
    return rows + (drawn * (noise * rows.std().item())).to(rows.dtype)


def copies_of_each(groups: Groups, n: int, recipe: GrowthRecipe) -> int:
    """Return the number of copies that replace each token of a layer in a growth to `n` tokens, or 1 without a
    split."""
    return n // sum(group.n for group in groups) if recipe.new_keys == "split" else 1
