"""Compare growth rules based on the validation loss with fixed token budgets. docs/study.md presents the results.

    python -m studies.growth_rules

The study trains chains of `progressive_tiny_adamw` with a WSD learning-rate schedule and without other changes. Some
chains have token budgets, which cover a range of costs; in the other chains, a stopping rule ends each stage. The last
loss of a chain with a rule is compared with the loss of the chains with budgets at the same FLOPs, by interpolation.
The tables are written to docs/measurements/study.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import mean

from studies.growth_recipes import write_results
from studies.tables import table
from studies.training import planned, prepare, train_all
from tfscale.plan.plan import Plan
from tfscale.stage.folder import is_done
from tfscale.stage.result import read_result

BUDGETS = [("2M", "200K"), ("2M", "400K"), ("4M", "400K"), ("4M", "800K")]
MOST = "schedule.stages.stage1.tokens=6M", "schedule.growth_tokens=1200K"
RULES = [("plateau", 0.02), ("predicted_gain", 0.05)]
SEEDS = (1, 2)


@dataclass(frozen=True)
class Row:
    """Measurements of one chain."""

    when: str
    """Stopping rule of the stages, or their token budgets."""
    seed: int
    keys: list[str]
    tokens: list[int]
    """Training tokens of each stage."""
    flops: list[int]
    """Cumulative FLOPs at the end of each stage."""
    losses: list[float]
    """Last validation loss of each stage."""


def plan_chain(when: str, overrides: Sequence[str], seed: int) -> tuple[str, int, Plan]:
    """Plan a chain. Seeds differ in the initial weights and in the order of the text."""
    base = ["schedule=progressive_tiny_adamw", "optim.lr_schedule=wsd", f"seed={seed}", f"data.shuffle_seed={seed}"]
    return when, seed, prepare(planned([*base, *overrides]))


def chains() -> list[tuple[str, int, Plan]]:
    """Plan all chains, with the stages that their rules have decided so far."""
    found = []
    for seed in SEEDS:
        for base, growth in BUDGETS:
            budget = [f"schedule.stages.stage1.tokens={base}", f"schedule.growth_tokens={growth}"]
            found.append(plan_chain(f"{base}, then {growth}", budget, seed))
        for rule, least in RULES:
            ruled = [*MOST, f"schedule.grow_when.rule={rule}", f"schedule.grow_when.min_delta={least}"]
            found.append(plan_chain(f"{rule}, {least:g}", ruled, seed))
    return found


def measure(when: str, seed: int, plan: Plan) -> Row:
    """Return the measurements of a finished chain."""
    stages = plan.chain.stages
    results = [read_result(stage.path) for stage in stages]
    return Row(
        when,
        seed,
        [stage.key for stage in stages],
        [each.tokens for each in results],
        [each.totals.flops for each in results],
        [each.evaluation.loss for each in results],
    )


def compare_with_budgets(row: Row, rows: Sequence[Row]) -> float | None:
    """Return the last loss of a chain minus the loss of the chains with token budgets and the same seed at the same
    FLOPs, or None outside the range of their FLOPs.

    The loss of the chains with budgets is interpolated linearly in log FLOPs, between chains for which no cheaper chain
    is better.
    """
    budgets = sorted(
        (each.flops[-1], each.losses[-1]) for each in rows if each.seed == row.seed and "then" in each.when
    )
    front = [point for n, point in enumerate(budgets) if all(point[1] < cheaper[1] for cheaper in budgets[:n])]
    for (low, before), (high, after) in pairwise(front):
        if low <= row.flops[-1] <= high:
            share = math.log(row.flops[-1] / low) / math.log(high / low)
            return row.losses[-1] - before - share * (after - before)
    return None


def report(rows: Sequence[Row], sizes: Sequence[str]) -> str:
    """Return the means of the rows over seeds as a table, sorted by cost."""
    lines = []
    for name in dict.fromkeys(row.when for row in sorted(rows, key=lambda row: row.flops[-1])):
        same = [row for row in rows if row.when == name]
        tokens = [f"{mean(of_size) / 1e3:,.0f}K" for of_size in zip(*(row.tokens for row in same), strict=True)]
        losses = [f"{mean(of_size):.4f}" for of_size in zip(*(row.losses for row in same), strict=True)]
        values = [compare_with_budgets(row, rows) for row in same] if "then" not in name else []
        differences = ", ".join("outside" if value is None else f"{value:+.4f}" for value in values)
        lines.append([name, *tokens, f"{mean(row.flops[-1] for row in same):.2e}", *losses, differences])
    tokens, losses = [f"tokens {size}" for size in sizes], [f"loss {size}" for size in sizes]
    return table("lr", ["When", *tokens, "FLOPs", *losses, "loss - budgets"], lines)


def main(parallel: int) -> None:
    """Train all decided stages until the rules have decided every stage, and write the results."""
    plans = [plan for *_, plan in chains()]
    while not all(is_done(stage) for plan in plans for stage in plan.stages):
        train_all((plan.decided for plan in plans), parallel)
        plans = [plan for *_, plan in chains()]
    rows = [measure(*each) for each in chains()]
    note = (
        f"Means over {len(SEEDS)} seeds; validation losses in nats at the end of each stage. FLOPs are those of the "
        "whole chain. The last column is the last loss minus that of the budgets at the same FLOPs, by seed. The JSON "
        "file of the same name has the keys of all stages."
    )
    sizes = [stage.size for stage in plans[0].chain.stages]
    write_results("when", [asdict(row) for row in rows], report(rows, sizes), note)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parallel", type=int, default=2, help="number of stages to train in parallel")
    main(parser.parse_args().parallel)
