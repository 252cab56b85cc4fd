"""Comparison of growth recipes from 2025 and 2026 on the small trunk, at equal cumulative compute.

    python -m studies.recipes_2026 docs/measurements/recipes [KEY=VALUE ...]

Trains the chain of `progressive_tiny_trunk` with each recipe, and Transformers grown in depth, with two seeds. Every
chain has the cumulative compute of that schedule up to its last model, and the models that are compared are branches,
whose learning rate decays to zero. Takes 15 minutes on two cores; finished stages are not trained again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

from studies.tables import page, run_study, table
from studies.training import arm_by_seed, loss_of, planned, prepare, train_all
from tfscale.models.counts import parameters
from tfscale.plan.arms import Arm, cumulative_flops

SEEDS = 2
DEPTH = (
    "baseline=depth_growth",
    "schedule.stages.stage1.transformer={n_layer: 1, d_model: 36, n_head: 1, lr: 0.01}",
)
"""Growth in depth from a Transformer of the first size with one layer, so that the largest Transformer is as wide as
possible."""
ADAMW = ("optim=tiny_adamw", "optim.lr_schedule=constant", "schedule.stages.stage1.lr=0.005")


@dataclass(frozen=True)
class Recipe:
    """A chain to train."""

    title: str
    overrides: tuple[str, ...] = ()
    schedule: str = "progressive_tiny_trunk"
    arm: str = "progressive"

    def chains(self, overrides: list[str]) -> list[Arm]:
        """Return the chain of each seed."""
        plan = planned([f"schedule={self.schedule}", f"seeds={SEEDS}", *self.overrides, *overrides])
        return arm_by_seed(prepare(plan), self.arm)


TABLES: dict[str, tuple[Recipe, ...]] = {
    "Muon": (
        Recipe("grouped growth, one rate for all rows"),
        Recipe("new rows re-warmed (`growth=rewarmed`)", ("growth=rewarmed",)),
        Recipe("four growths by factors of 2", schedule="progressive_tiny_doubling"),
        Recipe("Transformer grown in depth, from one layer", DEPTH, arm="depth_growth"),
    ),
    "AdamW": (
        Recipe("second moment of new rows: mean", ADAMW),
        Recipe("second moment of new rows: zero", (*ADAMW, "growth.new_second_moment=zero")),
    ),
}
"""Recipes by optimizer. All recipes of an optimizer are compared with the first."""


def rows(recipes: dict[Recipe, list[Arm]]) -> Iterator[list[str]]:
    """Yield one row of the table per recipe."""
    first = [loss_of(arm.stages[-1]) for arm in next(iter(recipes.values()))]
    for recipe, arms in recipes.items():
        models = " ".join(f"{parameters(stage.spec.model) / 1000:.0f}K" for stage in arms[0].stages)
        losses = [[loss_of(stage) for stage in arm.stages] for arm in arms]
        means = " ".join(f"{mean(at):.3f}" for at in zip(*losses, strict=True))
        differences = [last[-1] - base for last, base in zip(losses, first, strict=True)]
        cells = [f"{difference:+.4f}" if any(differences) else "0" for difference in differences]
        spent = cumulative_flops(arms[0], arms[0].stages[-1])
        yield [recipe.title, models, f"{spent:.2e}", means, *cells]


def study(overrides: list[str]) -> str:
    """Train all stages, and return the losses of each optimizer's recipes as a page."""
    tables = {name: {each: each.chains(overrides) for each in recipes} for name, recipes in TABLES.items()}
    arms = [arm for recipes in tables.values() for each in recipes.values() for arm in each]
    train_all(arm.lineage(model) for arm in arms for model in arm.stages)
    seeds = [f"Last, seed {seed}" for seed in range(SEEDS)]
    head = ["Recipe", "Models", "FLOPs of the last", "Losses", *seeds]
    note = (
        f"Validation losses in nats per token at the ends of the branches, means of {SEEDS} seeds. Last: loss of the "
        "last model minus that of the first row, for each seed."
    )
    blocks = [
        block for name, recipes in tables.items() for block in (f"## {name}", table("llrlr", head, rows(recipes)))
    ]
    return page("Recipes from 2025 and 2026", *blocks, note)


if __name__ == "__main__":
    run_study(study)
