"""Cost of using the learning rate that was tuned at the first size for the other sizes.

    python -m studies.transfer docs/measurements/transfer [KEY=VALUE ...]

Trains the TokenFormer from scratch at every size of the small chain, and the chain itself, with three seeds: at the
learning rates that `tfscale tune` chose for each size, and at the one that it chose for the first size. Grown stages
use this rate or half of it. Both with Muon and rates by fan-in, and with AdamW and one rate for all weights. Takes an
hour on two cores; finished stages are not trained again.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from studies.training import loss_of, planned, train_all
from tfscale.plan.plan import Plan
from tfscale.stage.folder import Stage

SEEDS = 3
SCRATCH, CHAIN = "tokenformer_scratch", "progressive"


@dataclass(frozen=True)
class Setting:
    """An optimizer, with the schedule that has its tuned learning rates."""

    title: str
    schedule: str


SETTINGS = (Setting("Muon, fan_in", "progressive_tiny"), Setting("AdamW, standard", "progressive_tiny_adamw"))


@dataclass(frozen=True)
class Comparison:
    """Plan at the tuned learning rates, and a plan in which an arm has the learning rate of the first size."""

    optimizer: str
    arm: str
    title: str
    tuned: Plan
    transferred: Plan

    def rows(self) -> Iterator[str]:
        """Yield one row of the table per size after the first."""
        for place in range(1, 4):
            tuned, transferred = (_losses(plan, self.arm, place) for plan in (self.tuned, self.transferred))
            costs = [one - other for one, other in zip(transferred, tuned, strict=True)]
            size = self.tuned.chain.stages[place].size
            cost = f"{mean(costs):+.3f} [{min(costs):+.3f}, {max(costs):+.3f}]"
            yield f"| {self.optimizer} | {self.title} | {size} | {mean(tuned):.4f} | {mean(transferred):.4f} | {cost} |"


def _losses(plan: Plan, arm: str, place: int) -> list[float]:
    return [loss_of(chain[place]) for chain in _chains(plan, arm)]


def _chains(plan: Plan, arm: str) -> list[tuple[Stage, ...]]:
    """Return the stages of an arm, one tuple per seed."""
    return [each.of_seed(seed).stages for each in plan.arms if each.name == arm for seed in each.seeds]


def comparisons(overrides: list[str]) -> Iterator[Comparison]:
    """Yield the comparisons of every optimizer."""
    for setting in SETTINGS:
        common = [f"schedule={setting.schedule}", "baseline=scratch", f"seeds={SEEDS}", *overrides]
        tuned = planned(common)
        rate = tuned.chain.stages[0].spec.optimizer.lr

        def at(key: str, value: float, common: list[str] = common) -> Plan:
            return planned([*common, *(f"schedule.stages.stage{number}.{key}={value:g}" for number in (2, 3, 4))])

        yield Comparison(setting.title, SCRATCH, "TokenFormer from scratch", tuned, at("scratch_lr", rate))
        yield Comparison(setting.title, CHAIN, "chain, grown stages at the rate", tuned, at("lr", rate))
        yield Comparison(setting.title, CHAIN, "chain, grown stages at half the rate", tuned, at("lr", rate / 2))


def report(found: list[Comparison]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| Optimizer | Arm | Size | Loss, tuned per size | Loss, rate of 25K | Cost of transfer |",
        "|---|---|---:|---:|---:|---:|",
        *(row for each in found for row in each.rows()),
    ]
    note = (
        f"Validation losses in nats per token, means of {SEEDS} seeds. The cost of transfer is the mean difference per "
        "seed, with the smallest and the largest in brackets. The rates were tuned with another seed on other text."
    )
    return "# Transfer of the learning rate\n\n" + "\n".join(lines) + f"\n\n{note}\n"


def main(folder: Path, overrides: list[str]) -> None:
    """Train everything, write the table to `folder`, and print it."""
    found = list(comparisons(overrides))
    plans = [(plan, each.arm) for each in found for plan in (each.tuned, each.transferred)]
    scratch = [(stage,) for plan, arm in plans if arm == SCRATCH for chain in _chains(plan, arm) for stage in chain]
    train_all([*scratch, *(chain for plan, arm in plans if arm == CHAIN for chain in _chains(plan, arm))])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(report(found), encoding="utf-8")
    print(report(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
