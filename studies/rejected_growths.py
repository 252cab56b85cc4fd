"""Comparison of chains with and without rejected growths on the small trunk, at equal cumulative compute.

    python -m studies.rejected_growths docs/measurements/rejected_growths [KEY=VALUE ...]

Trains the first three sizes of `progressive_tiny_trunk` with an eighth of the tokens and two seeds, with a growth that
preserves the function and with one that does not. A growth on trial is rejected if the loss after some tokens is too
high. A chain whose growths were rejected is compared with a chain of the same compute that keeps its growths and has
longer stages. Takes minutes on two cores; finished stages are not trained again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import mean

from studies.tables import page, run_study, table
from studies.training import loss_of, prepare, train_all
from tfscale.config.compose import compose
from tfscale.plan.arms import Arm, cumulative_flops
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.folder import is_done
from tfscale.text import count

SIZES, SEEDS = 3, 2
BASE, STAGE, AFTER, BOUND = 500_000, 50_000, 10_000, 0.05
"""Tokens of the base, of each grown stage and of a trial, and the bound of the trial in nats."""
ON_TRIAL = (f"schedule.reject_growth.after_tokens={AFTER}", f"schedule.reject_growth.bound={BOUND}")
PAPER = ("growth=paper", "growth.lr=continue", "growth.data=continue")


@dataclass(frozen=True)
class Recipe:
    """A chain to train."""

    title: str
    overrides: tuple[str, ...]
    stage_tokens: int = STAGE

    def plan(self, overrides: list[str]) -> Plan:
        """Return the plan, with the growths that have been rejected so far."""
        tokens = (f"schedule.stages.stage1.tokens={BASE}", f"schedule.growth_tokens={self.stage_tokens}")
        shared = ("tracking=none", f"seeds={SEEDS}", "data.validation_tokens=16384")
        experiment = compose(["schedule=progressive_tiny_trunk", *shared, *tokens, *self.overrides, *overrides])
        sizes = dict(list(experiment.schedule.stages.items())[:SIZES])
        return prepare(make_plan(replace(experiment, schedule=replace(experiment.schedule, stages=sizes))))

    def trained(self, overrides: list[str]) -> Arm:
        """Train the chains of all seeds, one trial after another, and return them as one arm."""
        plan = self.plan(overrides)
        while not all(is_done(stage) for stage in plan.stages):
            train_all(each.decided for each in plan.replicates)
            plan = self.plan(overrides)
        return plan.arms[0]


def with_compute_of(target: Arm, recipe: Recipe, overrides: list[str]) -> Recipe:
    """Return the recipe with the number of tokens per grown stage at which its chain has the compute of `target`."""
    [low, high] = (
        _spent(Recipe("", recipe.overrides, tokens).plan(overrides).arms[0]) for tokens in (STAGE, 2 * STAGE)
    )
    tokens = round(STAGE * (1 + (_spent(target) - low) / (high - low)))
    return Recipe(f"{recipe.title}, longer stages", recipe.overrides, tokens)


def _spent(arm: Arm) -> float:
    """Return the mean cumulative FLOPs of the last models of all seeds."""
    return mean(cumulative_flops(arm, stage) for stage in arm.stages if stage.size == arm.stages[-1].size)


def rows(arms: dict[Recipe, Arm], against: Recipe) -> Iterator[list[str]]:
    """Yield one row of the table per chain; the last losses are compared with those of `against`."""
    sizes = list(dict.fromkeys(stage.size for stage in arms[against].stages))
    for recipe, arm in arms.items():
        losses = [[loss_of(stage) for stage in arm.of_seed(seed).stages] for seed in arm.seeds]
        base = [loss_of(arms[against].of_seed(seed).stages[-1]) for seed in arm.seeds]
        rejected = [stage for stage in arm.detours if stage.spec.rejected]
        wasted = sum(stage.spec.tokens for stage in rejected) / len(arm.seeds)
        yield [
            recipe.title,
            count(recipe.stage_tokens),
            f"{len(rejected)} of {len(arm.seeds) * (len(sizes) - 1)}",
            count(wasted),
            f"{_spent(arm):.2e}",
            " ".join(f"{mean(at):.3f}" for at in zip(*losses, strict=True)),
            *(f"{last[-1] - other:+.4f}" for last, other in zip(losses, base, strict=True)),
        ]


def study(overrides: list[str]) -> str:
    """Train all stages, and return the losses of the chains as a page."""
    kept, tried = Recipe("paper growth, kept", PAPER), Recipe("paper growth, on trial", (*PAPER, *ON_TRIAL))
    arms = {each: each.trained(overrides) for each in (kept, tried, Recipe("grouped growth, on trial", ON_TRIAL))}
    longer = with_compute_of(arms[tried], kept, overrides)
    arms[longer] = longer.trained(overrides)
    seeds = [f"Last, seed {seed}" for seed in range(SEEDS)]
    measured = ["Tokens per stage", "Rejected", "Tokens of rejected growths", "FLOPs of the last", "Losses"]
    note = (
        f"`progressive_tiny_trunk` with a base of {count(BASE)} tokens; a trial reads the loss after {count(AFTER)} "
        f"tokens and allows {BOUND:g} nats above the parent's. Validation losses in nats per token at the ends of the "
        f"branches, means of {SEEDS} seeds. Last: loss of the last model minus that of {longer.title}, for each seed."
    )
    return page("Rejected growths", table("lrrrrlr", ["Chain", *measured, *seeds], rows(arms, longer)), note)


if __name__ == "__main__":
    run_study(study)
