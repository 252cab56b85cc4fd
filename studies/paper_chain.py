"""Predictions for the paper's chain, from the laws of the grid, the saturated chain and the paper's own points
(docs/paper_chain.md).

    python -m studies.paper_chain FOLDER SATURATED     # writes FOLDER/paper_chain.md and prints it

FOLDER has the runs of the grid (`studies.when_to_grow --write`), and SATURATED is the `table.json` of
`progressive_saturated`.

Small models stand for large ones with as many tokens per parameter and the same growth factor. Differences in nats are
assumed not to depend on size.
"""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from studies.grid_laws import StudyLaws, fit_study
from studies.grid_runs import RUNS, read_study
from studies.tables import page, table, with_range, write_page
from studies.training import planned
from studies.when_to_grow import GRIDS, model_of_tokens, plan_of
from tfscale.advise.law import LEVEL, interval
from tfscale.advise.runs import growth_factor
from tfscale.analysis.curves import ArmCurve, read_arms
from tfscale.analysis.intervals import Array
from tfscale.analysis.reference import published_arms
from tfscale.models.config import ModelConfig
from tfscale.models.counts import flops, parameters
from tfscale.plan.specs import Specs
from tfscale.text import count, scientific

STAGES = (15e9, 30e9, 60e9)
"""Budgets of the paper for the stage of 354M, in tokens."""
BASES = (300e9, 100e9, 30e9, 10e9, 3e9)
"""Budgets of the base in tokens, of which the paper has the first."""
STEEPEST = 0.5
"""Highest exponent of the law of a Transformer for which two points are published."""
SHARES = np.geomspace(0.005, 0.95, 300)
"""Shares of the compute that are tried for the base."""


@dataclass(frozen=True, eq=False)
class FirstGrowth:
    """First growth of the paper's chain, with small models that stand for its models."""

    base: ModelConfig
    grown: ModelConfig
    small_base: ModelConfig
    small_grown: ModelConfig
    laws: StudyLaws

    def losses(self, base_tokens: float, tokens: float) -> Array:
        """Return the loss of each refit [refits] for the small models that stand for a chain."""
        before = base_tokens / parameters(self.base) * parameters(self.small_base)
        after = tokens / parameters(self.grown) * parameters(self.small_grown)
        return self.laws.growth.draws(np.array([before, after, growth_factor(self.base, self.grown)]))

    def losses_from_scratch(self, compute: float) -> Array:
        """Return the loss of each refit [refits] for the small model that stands for a TokenFormer from scratch with
        the size of the grown model and `compute` FLOPs."""
        tokens = compute / flops(self.grown).training / parameters(self.grown) * parameters(self.small_grown)
        law = self.laws.scratch[parameters(self.small_grown)]
        return law.draws(np.array([tokens * flops(self.small_grown).training]))

    def compute(self, base_tokens: float, tokens: float) -> float:
        """Return the training FLOPs of a chain."""
        return flops(self.base).training * base_tokens + flops(self.grown).training * tokens

    def best_base(self, compute: float) -> float:
        """Return the budget of the base in tokens with the lowest expected loss for chains with `compute` FLOPs."""
        before = SHARES * compute / flops(self.base).training
        after = (1 - SHARES) * compute / flops(self.grown).training
        losses = [np.median(self.losses(*each)) for each in zip(before, after, strict=True)]
        return float(before[int(np.argmin(losses))])


def first_growth(folder: Path) -> tuple[FirstGrowth, tuple[ArmCurve, ...]]:
    """Return the first growth of the paper's chain and the published arms."""
    plan = planned(["schedule=progressive_1b4", "baseline=transformer"])
    small = plan_of(GRIDS[0], ())
    specs = Specs(small.experiment, small.corpus)
    published = published_arms({"arms": plan.experiment.reference.arms}, read_arms(plan.arms))
    base, grown = (stage.spec.model for stage in plan.chain.stages[:2])
    # The grid's size with the growth factor that is nearest to the paper's.
    models = [model_of_tokens(specs, tokens) for tokens in (GRIDS[0].base, *GRIDS[0].targets)]
    factor = growth_factor(base, grown)
    nearest = min(models[1:], key=lambda model: abs(math.log(growth_factor(models[0], model) / factor)))
    return FirstGrowth(base, grown, models[0], nearest, fit_study(read_study(folder / RUNS))), published


def scratch_rows(growth: FirstGrowth, chains: Sequence[ArmCurve]) -> Iterator[list[str]]:
    """Yield rows with the predictions for TokenFormers of 354M from scratch with the chains' compute."""
    base_tokens = chains[0].stages[0].evaluations[-1].totals.tokens
    for tokens, chain in zip(STAGES, chains, strict=True):
        published = chain.stages[1].evaluations[-1]
        compute = growth.compute(base_tokens, tokens)
        difference = growth.losses_from_scratch(compute) - growth.losses(base_tokens, tokens)
        perplexity = _spread(published.perplexity * np.exp(difference), ".2f")
        measured = [count(tokens), scientific(compute), f"{published.perplexity:.2f}"]
        yield [*measured, _spread(difference, "+.3f"), perplexity]


def fall_rows(growth: FirstGrowth, chains: Sequence[ArmCurve]) -> Iterator[list[str]]:
    """Yield rows with the fall of the loss of 354M between the paper's budgets, published and by the law."""
    base_tokens = chains[0].stages[0].evaluations[-1].totals.tokens
    for (before, after), (first, second) in zip(pairwise(STAGES), pairwise(chains), strict=True):
        fall = growth.losses(base_tokens, before) - growth.losses(base_tokens, after)
        published = first.stages[1].evaluations[-1].loss - second.stages[1].evaluations[-1].loss
        yield [f"{count(before)} to {count(after)}", f"{published:.3f}", _spread(fall, ".3f")]


def base_rows(growth: FirstGrowth) -> Iterator[list[str]]:
    """Yield rows with the predictions for shorter bases of a chain with 30B tokens of 354M."""
    whole = growth.compute(BASES[0], STAGES[1])
    for tokens in BASES[1:]:
        rise = growth.losses(tokens, STAGES[1]) - growth.losses(BASES[0], STAGES[1])
        saved = 1 - growth.compute(tokens, STAGES[1]) / whole
        yield [count(tokens), f"{tokens / parameters(growth.base):,.0f}", f"{saved:.0%}", _spread(rise, "+.3f")]


def best_sentence(growth: FirstGrowth) -> str:
    """Return the best base for the compute of the paper's chain up to 354M as a sentence."""
    compute = growth.compute(BASES[0], STAGES[1])
    best = growth.best_base(compute)
    after = (compute - flops(growth.base).training * best) / flops(growth.grown).training
    gain = growth.losses(BASES[0], STAGES[1]) - growth.losses(best, after)
    scratch = growth.losses_from_scratch(compute) - growth.losses(best, after)
    return (
        f"With the same compute ({scientific(compute)} FLOPs), the best base has {count(best)} tokens, and 354M then "
        f"has {count(after)}. With a base of 300B tokens the loss is higher by {_spread(gain, '.3f')} nats, and from "
        f"scratch it differs by {_spread(scratch, '+.3f')} nats."
    )


def last_rows(chains: Sequence[ArmCurve], transformer: ArmCurve, saturated: Path) -> Iterator[list[str]]:
    """Yield rows for 1.4B: the compute at which the Transformer reaches the chain's perplexity, and the perplexity of a
    TokenFormer from scratch with the chain's compute by the difference in the saturated chain."""
    low, high = ((each.totals.flops, each.loss) for each in transformer.stages[-1].evaluations)
    low_difference, high_difference = difference_of(saturated, "tokenformer_scratch")
    for tokens, chain in zip(STAGES, chains, strict=True):
        end = chain.stages[-1].evaluations[-1]
        reached = [cost_at(end.loss, low, high, exponent) for exponent in (1e-6, STEEPEST)]
        ratios = sorted(cost / end.totals.flops for cost in reached)
        scratch = [end.perplexity * math.exp(-each) for each in (high_difference, low_difference)]
        ranges = f"{ratios[0]:.1f} to {ratios[1]:.1f}", f"{scratch[0]:.2f} to {scratch[1]:.2f}"
        yield [count(tokens), scientific(end.totals.flops), f"{end.perplexity:.2f}", *ranges]


def cost_at(loss: float, low: tuple[float, float], high: tuple[float, float], exponent: float) -> float:
    """Return the compute at which the law L = E + A C^-exponent through two points (compute, loss) reaches a loss."""
    powers = [cost**-exponent for cost, _ in (low, high)]
    scale = (low[1] - high[1]) / (powers[0] - powers[1])
    power = powers[1] + (loss - high[1]) / scale
    return float(power ** (-1 / exponent)) if power > 0 else math.inf


def difference_of(saturated: Path, arm: str) -> tuple[float, float]:
    """Return the interval of the loss of the saturated chain minus that of an arm at the last size, in nats."""
    rows = json.loads(saturated.read_text(encoding="utf-8"))["rows"]
    (row,) = (each for each in rows if each["arm"] == arm and each["size"] == rows[-1]["size"])
    perplexity = row["equal_compute_perplexity"]
    low, high = (math.log(1 + row[f"chain_minus_arm_{end}"] / perplexity) for end in ("low", "high"))
    return low, high


def _spread(draws: Array, form: str) -> str:
    around = interval(draws)
    return with_range(float(np.median(draws)), around.low, around.high, form)


def report(folder: Path, saturated: Path) -> str:
    """Return the predictions as a page."""
    growth, published = first_growth(folder)
    arms = {arm.name: arm for arm in published}
    chains = [arms[f"progressive_{tokens / 1e9:.0f}b"] for tokens in STAGES]
    scratch = ["Chain, published", "From scratch minus chain, nats", "From scratch, predicted"]
    bases = ["Tokens of 124M", "Per parameter", "Compute saved", "Rise of the loss, nats"]
    ratio = "Compute of the Transformer at this perplexity, divided by that of the chain"
    predicted = "TokenFormer from scratch with the chain's compute, predicted"
    return page(
        "Predictions for the paper's chain",
        "354M, TokenFormer from scratch with the chain's compute:",
        table("rrrl", ["Tokens of 354M", "FLOPs", *scratch], scratch_rows(growth, chains)),
        "354M, fall of the loss between budgets, in nats:",
        table("lrl", ["Tokens of 354M", "Published", "By the law"], fall_rows(growth, chains)),
        "354M with 30B tokens after shorter bases, compared with a base of 300B:",
        table("rrrl", bases, base_rows(growth)),
        best_sentence(growth),
        "1.4B:",
        table(
            "rrrl",
            ["Tokens per stage", "FLOPs", "Chain, published", ratio, predicted],
            last_rows(chains, arms["transformer"], saturated),
        ),
        f"Perplexities, unless nats are named. [low, high]: {LEVEL:.0%} intervals of the laws of the grid, without the "
        "error of the step from small to large models. The compute of the Transformer is read from its two published "
        f"points by laws with exponents up to {STEEPEST}. The last column has the 95% interval of the difference in "
        "the saturated chain.",
    )


if __name__ == "__main__":
    write_page(Path(sys.argv[1]) / "paper_chain.md", report(Path(sys.argv[1]), Path(sys.argv[2])))
