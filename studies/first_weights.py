"""The study of first weights: what the official initialisation costs small models. docs/study.md reads it out.

    python studies/first_weights.py

TokenFormers of `progressive_tiny`'s smallest and largest size from scratch, on 600K tokens, with `model.init=official`
and `model.init=scaled`, each at three learning rates, at the best of which it counts. Tables go to
docs/measurements/study.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from statistics import mean

from growth_recipes import TABLES, train_plans

from tfscale.config.compose import compose
from tfscale.schedule.arms import ArmStage
from tfscale.schedule.ledger import read_done
from tfscale.schedule.plan import Plan, make_plan

INITS = ("official", "scaled")
FACTORS = (0.5, 1.0, 2.0)
SEEDS = (1, 2)
TOKENS = "600K"
RATES = {"25K": 1e-2, "254K": 1.25e-3}
"""The schedule's, which were tuned for `scaled`."""


@dataclass(frozen=True)
class Row:
    """One run."""

    size: str
    init: str
    lr: float
    seed: int
    key: str
    loss: float


@dataclass(frozen=True)
class Run:
    """A run and where it stands in the table."""

    size: str
    init: str
    lr: float
    seed: int
    plan: Plan

    @property
    def stage(self) -> ArmStage:
        arm = next(arm for arm in self.plan.arms if arm.name == "tokenformer_stage_tokens")
        return next(stage for stage in arm.stages if stage.size == self.size)

    def row(self) -> Row:
        loss = float(read_done(self.stage.path)["eval"]["loss"])
        return Row(self.size, self.init, self.lr, self.seed, self.stage.key, loss)


def runs() -> list[Run]:
    """Every size, initialisation, learning rate and seed."""
    return [
        Run(size, init, rate * factor, seed, plan_of(size, init, rate * factor, seed))
        for size, rate in RATES.items()
        for init in INITS
        for factor in FACTORS
        for seed in SEEDS
    ]


def plan_of(size: str, init: str, rate: float, seed: int) -> Plan:
    which = "stage1.lr" if size == "25K" else "stage4.scratch_lr"
    changes = [f"schedule.stages.stage1.tokens={TOKENS}", f"schedule.growth_tokens={TOKENS}", f"model.init={init}"]
    chance = [f"seed={seed}", f"data.order_seed={seed}", "tracking=none", "baseline=stage_tokens"]
    return make_plan(compose([*changes, *chance, f"schedule.stages.{which}={rate}"]))


def write(rows: list[Row]) -> None:
    """The rows as JSON; of each initialisation the mean loss at its best learning rate as a Markdown table."""
    (TABLES / "init.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    lines = [["Size", "Init", "lr", "Loss", "Seed by seed, less official"], ["---"] * 2 + ["---:"] * 3]
    for size in RATES:
        best = {init: _best([row for row in rows if (row.size, row.init) == (size, init)]) for init in INITS}
        for init, found in best.items():
            pairs = zip(found, best["official"], strict=True) if init != "official" else ()
            apart = ", ".join(f"{one.loss - other.loss:+.3f}" for one, other in pairs)
            lines.append([size, init, f"{found[0].lr:g}", f"{mean(row.loss for row in found):.4f}", apart])
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    rates = ", ".join(f"{factor:g}" for factor in FACTORS)
    note = (
        f"Held-out loss in nats, mean of {len(SEEDS)} seeds, of TokenFormers from scratch on {TOKENS} tokens, at the "
        f"best of the schedule's learning rate times {rates}. All runs: the JSON file beside this one."
    )
    (TABLES / "init.md").write_text(f"# init\n\n{text}\n\n{note}\n", encoding="utf-8")
    print(text)


def _best(rows: list[Row]) -> list[Row]:
    rates = {row.lr: [each for each in rows if each.lr == row.lr] for row in rows}
    return min(rates.values(), key=lambda same: mean(row.loss for row in same))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parallel", type=int, default=2, help="runs side by side")
    arguments = parser.parse_args()
    planned = runs()
    train_plans([run.plan for run in planned], [run.stage for run in planned], arguments.parallel)
    write([run.row() for run in planned])
