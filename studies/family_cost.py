"""Cost of all sizes together at the perplexities of the chain of `progressive_saturated` (docs/study.md).

    python -m studies.family_cost docs/measurements/progressive_saturated_readings            # prints the table
    python -m studies.family_cost docs/measurements/progressive_saturated_readings --train [KEY=VALUE ...]

Models from scratch reach the chain's perplexities before its smallest budget, where a comparison has no decayed models.
`--train` trains the branches at further budgets, each half of the next larger one, and writes their losses to
`smaller_readings.json`; half an hour of one core. Their stages are those of `tfscale compare
schedule=progressive_saturated schedule.branches.readings=all schedule.branches.smaller_readings=3`, which also trains
the larger budgets. Here these are read from the recorded comparison, `table.json`.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from studies.tables import page, table, write_page
from studies.training import loss_of, planned, prepare, train_all
from tfscale.analysis.bootstrap import Curves
from tfscale.plan.arms import Arm, cumulative_flops
from tfscale.stage.folder import Stage
from tfscale.text import scientific

ARMS = {"transformer_scratch": "Transformer", "tokenformer_scratch": "TokenFormer"}
SMALLER = 3
"""Number of budgets below the chain's smallest one."""
FILE = "smaller_readings.json"
NOISE = 0.03
"""Largest difference of two single runs that is noise, in nats (`studies.seed_noise`)."""


@dataclass(frozen=True)
class Reading:
    """Decayed model of an arm from scratch."""

    arm: str
    size: str
    flops: float
    """Cumulative model FLOPs."""
    loss: float
    """Final validation loss in nats per token."""


@dataclass(frozen=True)
class Target:
    """Model of the chain, whose loss the arms are to reach."""

    size: str
    loss: float


def smaller_ends(arm: Arm, smallest: float) -> list[Stage]:
    """Return the branches of an arm at the budgets below `smallest`."""
    ends = [stage for stage in (*arm.readings, *arm.stages) if cumulative_flops(arm, stage) < 0.9 * smallest]
    return sorted(ends, key=lambda stage: (stage.size, cumulative_flops(arm, stage)))


def train_smaller(overrides: Sequence[str]) -> list[Reading]:
    """Train the branches at the smaller budgets and return their results."""
    settings = ["schedule.branches.readings=all", f"schedule.branches.smaller_readings={SMALLER}"]
    plan = prepare(planned(["schedule=progressive_saturated", "baseline=scratch", *settings, *overrides]))
    smallest = cumulative_flops(plan.chain, plan.chain.stages[0])
    ends = [(arm, stage) for arm in plan.baselines if arm.name in ARMS for stage in smaller_ends(arm, smallest)]
    train_all([arm.lineage(stage) for arm, stage in ends])
    return [Reading(arm.name, end.size, float(cumulative_flops(arm, end)), loss_of(end)) for arm, end in ends]


def recorded(folder: Path) -> tuple[list[Target], float, list[Reading]]:
    """Return the chain's models, the cost of its family in model FLOPs, and the decayed models of both arms at all
    budgets."""
    table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    chain = [Target(row["size"], row["loss"]) for row in table["rows"] if row["kind"] == "chain"]
    family = next(each for each in table["families"] if each["measure"] == "flops")
    smaller = json.loads((folder / FILE).read_text(encoding="utf-8"))
    larger = [each for each in table["readings"] if each["arm"] in ARMS]
    readings = [Reading(each["arm"], each["size"], each["flops"], each["loss"]) for each in (*smaller, *larger)]
    return chain, family["at_perplexities_of_chain"]["chain"]["high"], sorted(readings, key=lambda each: each.flops)


def cost(target: Target, readings: Sequence[Reading], shift: float = 0.0) -> tuple[float, bool]:
    """Return the compute at which decayed models reach the loss of the chain's model, by interpolation in the logarithm
    of compute, or infinity if they do not reach it, and whether the smallest of them is already better, so that the
    compute is an upper bound.

    Args:
        shift: nats that are added to the loss of the chain's model, unless one of `readings` is the same run.
    """
    compute, losses = np.log([[each.flops for each in readings]]), np.array([[each.loss for each in readings]])
    wanted = target.loss + (0.0 if target.loss in losses else shift)
    at, _ = Curves(compute, losses).first_reach(np.array([wanted]))
    return float(np.exp(at[0])), bool(losses[0, 0] < wanted)


def report(chain: Sequence[Target], family: float, readings: Sequence[Reading]) -> str:
    """Return the costs, and the losses that they are read from, as a page."""
    head = ["Arm from scratch", *(each.size for each in chain), "all sizes", "the chain's family costs",
            f"with losses of the chain {NOISE} nats lower, and higher"]  # fmt: skip
    costs = table("lr", head, [_costs(arm, chain, family, readings) for arm in ARMS])
    note = (
        "Model FLOPs at which decayed models from scratch reach the loss of the chain's model of the same size. The "
        f"chain's family costs {scientific(family)}. One seed; differences of single runs below {NOISE} nats are noise."
    )
    losses = table("llrrr", ["Arm", "Size", "FLOPs", "Loss", "Chain"], list(_losses(chain, readings)))
    return page("Cost of all sizes together", costs, note, "## Losses", losses)


def _costs(arm: str, chain: Sequence[Target], family: float, readings: Sequence[Reading]) -> list[str]:
    def found(shift: float) -> list[tuple[float, bool]]:
        own = [[each for each in readings if (each.arm, each.size) == (arm, target.size)] for target in chain]
        return [cost(target, each, shift) for target, each in zip(chain, own, strict=True)]

    shifted = [_verdict(family, *_total(found(shift))) for shift in (-NOISE, NOISE)]
    total = _total(found(0.0))
    return [
        ARMS[arm],
        *(_bound(*each) for each in found(0.0)),
        _bound(*total),
        _verdict(family, *total),
        ", ".join(shifted),
    ]


def _total(costs: Sequence[tuple[float, bool]]) -> tuple[float, bool]:
    return sum(flops for flops, _ in costs), any(bounded for _, bounded in costs)


def _verdict(family: float, total: float, bounded: bool) -> str:
    if np.isinf(total):
        return "not reached"
    excess = family / total - 1
    words = ("at least ", "more") if excess > 0 else ("at most ", "less")
    return f"{words[0] if bounded else ''}{abs(excess):.0%} {words[1]}"


def _bound(flops: float, bounded: bool) -> str:
    return f"{'<= ' if bounded else ''}{scientific(flops)}"


def _losses(chain: Sequence[Target], readings: Sequence[Reading]) -> Iterator[list[str]]:
    for arm, title in ARMS.items():
        for target in chain:
            for each in readings:
                if (each.arm, each.size) == (arm, target.size):
                    yield [title, each.size, scientific(each.flops), f"{each.loss:.4f}", f"{target.loss:.4f}"]


def main(folder: Path, train: bool, overrides: Sequence[str]) -> None:
    """Train the smaller budgets if asked, write the table to `folder` and print it."""
    if train:
        found = [json.dumps(asdict(each)) for each in train_smaller(overrides)]
        (folder / FILE).write_text("[\n" + ",\n".join(found) + "\n]\n", encoding="utf-8")
    write_page(folder / "family_cost.md", report(*recorded(folder)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, such as runs=FOLDER")
    parser.add_argument("--train", action="store_true", help="train the branches at the smaller budgets")
    given = parser.parse_intermixed_args()
    main(given.folder, given.train, given.overrides)
