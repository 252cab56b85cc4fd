"""Cost of using the learning rate of the first size for the other sizes.

    python -m studies.transfer docs/measurements/transfer [KEY=VALUE ...]

Trains the TokenFormer from scratch at every size of the small chain, and the grown stages of the chain, with three
seeds: at the learning rates of `progressive_tiny`, which are that of the first size for all models from scratch and a
quarter of it for all grown stages, and at half and at twice these rates. A second table summarises the recorded sweeps
with AdamW and one rate for all weights. Takes half an hour on two cores; finished stages are not trained again.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from studies.tables import mean_and_range, page, run_study, table
from studies.training import arm_by_seed, loss_of, planned, prepare, train_all
from tfscale.plan.plan import Plan
from tfscale.stage.folder import Stage

SEEDS = 3
FACTORS = (0.5, 1.0, 2.0)
SCRATCH, CHAIN = "tokenformer_scratch", "progressive"
SWEEPS = Path(__file__).parent.parent / "docs" / "measurements" / "study"
ADAMW = {
    "tokenformer_scratch": "progressive_tiny-1a61a5af884d.json",
    "progressive": "progressive_tiny-8dc00e12f851.json",
}
"""Records of `tfscale tune` with AdamW and one rate for all weights, by arm."""


@dataclass(frozen=True)
class Setting:
    """An arm whose learning rates after the first size are multiplied by a factor."""

    arm: str
    title: str
    plans: dict[float, Plan]
    """Plans by factor."""

    def rows(self) -> Iterator[list[str]]:
        """Yield one row of the table per size after the first."""
        for place in range(1, 4):
            losses = {factor: [loss_of(each[place]) for each in self.chains(factor)] for factor in FACTORS}
            best = min(FACTORS, key=lambda factor: mean(losses[factor]))
            costs = [one - other for one, other in zip(losses[1.0], losses[best], strict=True)]
            stage = self.chains(1.0)[0][place]
            cells = [f"{mean(losses[factor]):.4f}" for factor in FACTORS]
            cost = mean_and_range(costs, "+.3f") if best != 1 else "0 (the best)"
            yield [self.title, stage.size, f"{stage.spec.optimizer.lr:g}", *cells, cost]

    def chains(self, factor: float) -> list[tuple[Stage, ...]]:
        """Return the stages of the arm at a factor, one tuple per seed."""
        return [arm.stages for arm in arm_by_seed(self.plans[factor], self.arm)]


def settings(overrides: list[str]) -> Iterator[Setting]:
    """Yield the scratch arm and the chain, with Muon and learning rates by fan-in."""
    common = ["schedule=progressive_tiny", "baseline=scratch", f"seeds={SEEDS}", *overrides]
    first = planned(common).experiment.schedule.stages
    for arm, title, key in ((SCRATCH, "TokenFormer from scratch", "scratch_lr"), (CHAIN, "chain", "lr")):
        rates = {f"schedule.stages.{name}.{key}": getattr(first[name], key) for name in list(first)[1:]}
        plans = {
            factor: prepare(planned([*common, *(f"{name}={factor * rate:g}" for name, rate in rates.items())]))
            for factor in FACTORS
        }
        yield Setting(arm, title, plans)


def adamw_rows() -> Iterator[list[str]]:
    """Yield one row per arm and size after the first, with the excess loss at the highest rate that was tried, which is
    at most the rate chosen for 25K."""
    for arm, file in ADAMW.items():
        first, *others = json.loads((SWEEPS / file).read_text(encoding="utf-8"))["rates"]
        for sweep in others:
            losses = {trial["lr"]: trial["loss"] for trial in sweep["trials"]}
            nearest = max(losses)
            assert nearest <= first["chosen"]
            title, size = "TokenFormer from scratch" if arm == SCRATCH else "chain", sweep["trains"][0]["size"]
            excess = losses[nearest] - losses[sweep["chosen"]]
            yield [title, size, f"{sweep['chosen']:g}", f"{nearest:g}", f"{excess:+.3f}"]


def study(overrides: list[str]) -> str:
    """Train all stages, and return both tables as a page."""
    found = list(settings(overrides))
    chains = [(each.arm, chain) for each in found for factor in FACTORS for chain in each.chains(factor)]
    scratch = [(stage,) for arm, chain in chains if arm == SCRATCH for stage in chain]
    train_all([*scratch, *(chain for arm, chain in chains if arm == CHAIN)])
    losses = ["Loss at half of it", "Loss at it", "Loss at twice it"]
    muon = ["Arm", "Size", "Learning rate", *losses, "Cost against the best"]
    adamw = ["Arm", "Size", "Best rate", "Highest rate tried, at most that of 25K", "Excess loss there"]
    return page(
        "Transfer of the learning rate",
        "Muon, rates by fan-in",
        table("lr", muon, (row for each in found for row in each.rows())),
        f"Validation losses in nats per token, means of {SEEDS} seeds. The cost is the mean difference per seed, with "
        "the smallest and the largest in brackets. A chain has the same factor in all grown stages.",
        "AdamW, one rate for all weights: recorded sweeps",
        table("lr", adamw, adamw_rows()),
        "One seed, on other validation text. The rate of 25K is 0.01; the excess at it is at least as large.",
    )


if __name__ == "__main__":
    run_study(study)
