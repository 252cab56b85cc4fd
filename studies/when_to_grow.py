"""The study of when to grow: does a rule that looks at the held-out loss beat budgets in tokens? docs/study.md reads it
out.

    python studies/when_to_grow.py

Chains of `progressive_tiny_adamw` with WSD, whose learning rates and recipe stay as they are. Some have budgets, which
span what a chain may cost; in the others a rule ends each stage. What a rule's last loss is worth is read between the
budgets: the loss that they reach for the same FLOPs. Tables go to docs/measurements/study.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import mean

from growth_recipes import TABLES, train_plans

from tfscale.config.compose import compose
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.result import read_result

BUDGETS = [("2M", "200K"), ("2M", "400K"), ("4M", "400K"), ("4M", "800K")]
MOST = "schedule.stages.stage1.tokens=6M", "schedule.growth_tokens=1200K"
RULES = [("plateau", 0.02), ("predicted_gain", 0.05)]
SEEDS = (1, 2)


@dataclass(frozen=True)
class Row:
    """One chain."""

    when: str
    seed: int
    keys: list[str]
    tokens: list[int]
    """Of each stage."""
    flops: list[int]
    """Cumulative."""
    losses: list[float]
    """Last held-out loss of each stage."""


def plan_of(when: str, overrides: Sequence[str], seed: int) -> tuple[str, int, Plan]:
    """A chain, replicates of which differ in weights and in the order of the text."""
    usual = ["schedule=progressive_tiny_adamw", "optim.lr_schedule=wsd", "tracking=none"]
    usual += [f"seed={seed}", f"data.shuffle_seed={seed}"]
    return when, seed, make_plan(compose([*usual, *overrides]))


def chains() -> list[tuple[str, int, Plan]]:
    """All chains, with what their rules have decided so far."""
    found = []
    for seed in SEEDS:
        for base, growth in BUDGETS:
            budget = [f"schedule.stages.stage1.tokens={base}", f"schedule.growth_tokens={growth}"]
            found.append(plan_of(f"{base}, then {growth}", budget, seed))
        for rule, least in RULES:
            ruled = [*MOST, f"schedule.grow_when.rule={rule}", f"schedule.grow_when.min_delta={least}"]
            found.append(plan_of(f"{rule}, {least:g}", ruled, seed))
    return found


def row_of(when: str, seed: int, plan: Plan) -> Row:
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


def beside_budgets(row: Row, rows: Sequence[Row]) -> float | None:
    """The last loss less that of the budgets of the same seed at the same FLOPs, on a straight line over log FLOPs
    through those that no other budget is better and cheaper than; None outside their range."""
    budgets = sorted(
        (each.flops[-1], each.losses[-1]) for each in rows if each.seed == row.seed and "then" in each.when
    )
    front = [point for n, point in enumerate(budgets) if all(point[1] < cheaper[1] for cheaper in budgets[:n])]
    for (low, before), (high, after) in pairwise(front):
        if low <= row.flops[-1] <= high:
            share = math.log(row.flops[-1] / low) / math.log(high / low)
            return row.losses[-1] - before - share * (after - before)
    return None


def write(rows: Sequence[Row], sizes: Sequence[str]) -> None:
    """The rows as JSON, and their means over seeds as a Markdown table, the cheapest first."""
    (TABLES / "when.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    head = [
        "When",
        *(f"tokens {size}" for size in sizes),
        "FLOPs",
        *(f"loss {size}" for size in sizes),
        "beside budgets",
    ]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    names = dict.fromkeys(row.when for row in sorted(rows, key=lambda row: row.flops[-1]))
    for name in names:
        same = [row for row in rows if row.when == name]
        tokens = [f"{mean(row.tokens[n] for row in same) / 1e3:,.0f}K" for n in range(len(sizes))]
        losses = [f"{mean(row.losses[n] for row in same):.4f}" for n in range(len(sizes))]
        apart = [beside_budgets(row, rows) for row in same] if "then" not in name else []
        beside = ", ".join("outside" if value is None else f"{value:+.4f}" for value in apart)
        lines.append([name, *tokens, f"{mean(row.flops[-1] for row in same):.2e}", *losses, beside])
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    note = (
        f"Means over {len({row.seed for row in rows})} seeds; held-out losses in nats at the end of each stage. "
        "FLOPs: of the whole chain. Beside budgets: the last loss less that of the budgets at the same FLOPs, seed by "
        "seed. Keys of all stages: the JSON file beside this one."
    )
    (TABLES / "when.md").write_text(f"# when\n\n{text}\n\n{note}\n", encoding="utf-8")
    print(text)


def main(parallel: int) -> None:
    """Trains the chains, as far as is decided again and again, and writes the tables."""
    decided: list[Stage] = []
    while not decided or not all(is_done(stage) for *_, plan in chains() for stage in plan.stages):
        plans = [plan for *_, plan in chains()]
        decided = [stage for plan in plans for stage in plan.decided]
        train_plans(plans, decided, parallel)
    write([row_of(*each) for each in chains()], [stage.size for stage in chains()[0][2].chain.stages])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parallel", type=int, default=2, help="stages side by side")
    main(parser.parse_args().parallel)
