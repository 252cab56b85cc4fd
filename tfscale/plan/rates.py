"""From a growth recipe's rate settings to those of a stage, in its own rows and tokens."""

from tfscale.growth.recipe import GrowthRecipe, RateSettings, copies_of_each
from tfscale.models.parameter_tokens import total
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.stage.spec import RateSpec


def rates_of(recipe: GrowthRecipe, parent: TokenFormerConfig, child: TokenFormerConfig, tokens: int) -> RateSpec | None:
    """The learning rates of a stage of `tokens` tokens that grew from `parent` to `child`; None where all weights have
    the same one."""
    rates = recipe.rates
    if rates == RateSettings():
        return None
    qkv, out, ffn = (
        total(before) * copies_of_each(before, total(after), recipe)
        for before, after in ((parent.qkv, child.qkv), (parent.out, child.out), (parent.ffn, child.ffn))
    )
    return RateSpec(
        rows=(qkv, out, ffn),
        old=rates.old,
        old_ramp_tokens=round(rates.old_ramp * tokens),
        frozen_tokens=round(rates.frozen * tokens),
        new=rates.new,
        per_row_bias=rates.per_row_bias,
        new_second_moment=recipe.new_second_moment == "zero",
    )
