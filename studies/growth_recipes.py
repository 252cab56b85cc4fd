"""The study of growth recipes: which one gets furthest for the same compute? docs/study.md reads it out.

    python studies/growth_recipes.py tune      every recipe at several learning rates, seed 0
    python studies/growth_recipes.py rank      the best of them at their best rate, and the paper's, seeds 1 to 3
    python studies/growth_recipes.py again     one of those once more: the same to the last digit

With --elsewhere the same on a corpus and a shape that nothing was chosen on: the winner, what it comes of, and the
paper's recipe. Each cell is a chain of `progressive_tiny_adamw`, elsewhere of `progressive_small`, with some settings
changed; its stages are ordinary ones, so what has been trained is not trained again, and a cell can be looked at with
`tfscale status`. All cells are evaluated on validation text that no comparison reports. Tables go to
docs/measurements/study.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from tfscale.config.compose import compose
from tfscale.data.progress import silent
from tfscale.orchestrate.orchestrator import Orchestrator
from tfscale.plan.corpus import prepare_corpus
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.growth_record import read_growth
from tfscale.stage.result import read_result

TABLES = Path(__file__).parent.parent / "docs" / "measurements" / "study"

GROUPED = "growth=grouped"
RECIPES: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {
    "paper": (("growth=paper",), (1, 2, 4, 8)),
    "paper, moments and data carried on": (("growth=paper", "growth.moments=carry", "growth.data=continue"), (1, 2)),
    "paper, noise on old rows": (("growth=paper", "growth.noise=0.1"), (1, 2)),
    "exact": (("growth=exact",), (1, 2)),
    "split, noise": (("growth=split",), (1, 2)),
    "split, asymmetric reset": (("growth=split", "growth.noise=0", "growth.moments=asymmetric"), (1, 2)),
    "grouped": ((GROUPED,), (0.5, 1, 2)),
    "grouped, rows corrected": ((GROUPED, "growth.new_second_moment=zero", "growth.rates.per_row_bias=true"), (1,)),
    "grouped, matched keys": ((GROUPED, "growth.new_keys=matched"), (1, 2)),
    "grouped, rate continued": ((GROUPED, "growth.lr=continue"), (1,)),
    "grouped, fast new rows": ((GROUPED, "growth.rates.new=3"), (0.5, 1, 2)),
    "grouped, faster new rows": ((GROUPED, "growth.rates.new=10"), (0.5, 1)),
    "grouped, slow old rows, ramp": ((GROUPED, "growth.rates.old=0.1", "growth.rates.old_ramp=0.5"), (1, 2)),
    "grouped, old rows frozen": ((GROUPED, "growth.rates.frozen=0.2"), (1,)),
}
"""Of each recipe: what it changes, and the learning rates of grown stages that it is tried at, as factors of the
schedule's own, which were tuned for `grouped`."""

BEHIND = 65_536
"""Position of the validation text of all cells, behind the text on which comparisons are evaluated."""
TUNING_SEED = 0
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Place:
    """Where recipes are tried."""

    tables: str
    """What the names of its tables begin with."""
    schedule: str
    peaks: dict[str, tuple[float, ...]]
    """The recipes, each with the rates that it is tried at."""
    finalists: int
    """How many are ranked, beside the paper's."""


HERE = Place("", "progressive_tiny_adamw", {name: peaks for name, (_, peaks) in RECIPES.items()}, finalists=3)
ELSEWHERE = Place(
    "elsewhere_",
    "progressive_small",
    {"grouped, fast new rows": (0.25, 0.5, 1, 2), "grouped": (0.5, 1, 2), "paper": (1, 2, 4, 8)},
    finalists=1,
)


@dataclass(frozen=True)
class Cell:
    """One chain."""

    recipe: str
    peak: float
    seed: int
    plan: Plan
    validation_start: int

    def row(self) -> dict[str, Any]:
        """What it measured, stage by stage, with the keys under which that is found."""
        stages = self.plan.chain.stages
        results = [read_result(stage.path) for stage in stages]
        growths = [growth for stage in stages[1:] if (growth := read_growth(stage.path))]
        return {
            "recipe": self.recipe,
            "peak": self.peak,
            "seed": self.seed,
            "validation_start": self.validation_start,
            "keys": [stage.key for stage in stages],
            "sizes": [stage.size for stage in stages],
            "flops": [each.totals.flops for each in results],
            "losses": [each.evaluation.loss for each in results],
            "jumps": [each["comparison"]["loss_after"] - each["comparison"]["loss_before"] for each in growths],
        }


def cell(
    place: Place, recipe: str, peak: float, seed: int, more: Sequence[str] = (), validation_start: int = BEHIND
) -> Cell:
    """The chain of a recipe; replicates differ in weights and in the order of the text."""
    where = [f"schedule={place.schedule}", f"seed={seed}", f"data.shuffle_seed={seed}", "tracking=none"]
    where.append(f"data.validation_start={validation_start}")
    plan = make_plan(compose([*where, *RECIPES[recipe][0], f"growth.peak={peak}", *more]))
    return Cell(recipe, peak, seed, plan, validation_start)


def train(cells: Sequence[Cell], parallel: int) -> None:
    """Trains what is not finished, `parallel` stages side by side."""
    plans = [each.plan for each in cells]
    train_plans(plans, [stage for plan in plans for stage in plan.chain.stages], parallel)


def train_plans(plans: Sequence[Plan], wanted: Sequence[Stage], parallel: int) -> None:
    """Trains those stages of plans that are not finished; bases and others that plans share, once."""
    for plan in {plan.corpus.fingerprint: plan for plan in plans}.values():
        prepare_corpus(plan.experiment, plan.corpus, silent)
    whole = {stage.key: stage for stage in wanted}
    stages = [stage for stage in whole.values() if not is_done(stage)]
    launcher = replace(plans[0].experiment.launcher, parallel=parallel)
    if not Orchestrator(stages, launcher, Told(len(stages))).run():
        raise SystemExit(75)


def tune(place: Place, parallel: int) -> None:
    """Every recipe at every rate."""
    cells = [cell(place, name, peak, TUNING_SEED) for name, peaks in place.peaks.items() for peak in peaks]
    train(cells, parallel)
    write(place, "tune", [each.row() for each in cells])


def finalists(place: Place) -> dict[str, float]:
    """The best recipes by the loss after the last stage, and the paper's, each with its best rate."""
    ranked = sorted(read(place, "tune"), key=lambda row: row["losses"][-1])
    best: dict[str, float] = {}
    for row in ranked:
        best.setdefault(row["recipe"], row["peak"])
    return {
        name: peak for number, (name, peak) in enumerate(best.items()) if number < place.finalists or name == "paper"
    }


def rank(place: Place, parallel: int) -> None:
    """The finalists with seeds that they were not chosen on."""
    cells = [cell(place, recipe, peak, seed) for seed in SEEDS for recipe, peak in finalists(place).items()]
    train(cells, parallel)
    write(place, "rank", [each.row() for each in cells])


def again(place: Place, parallel: int) -> None:
    """Trains a cell of the ranking once more, in a folder of its own, and holds it against what was recorded."""
    recorded = read(place, "rank")[0]
    with TemporaryDirectory() as folder:
        # The recorded ranking was made on the text of the comparisons, before its tables said on which.
        recorded = {"validation_start": 0} | recorded
        start = recorded["validation_start"]
        made = cell(place, recorded["recipe"], recorded["peak"], recorded["seed"], (f"runs={folder}",), start)
        train([made], parallel)
        row = made.row()
    if row != recorded:
        raise SystemExit(f"not the same: {row}\nrecorded: {recorded}")
    print(f"{row['recipe']}, seed {row['seed']}: the same keys and losses to the last digit, {row['losses']}")


def read(place: Place, name: str) -> list[dict[str, Any]]:
    """The rows of a table."""
    rows: list[dict[str, Any]] = json.loads((TABLES / f"{place.tables}{name}.json").read_text(encoding="utf-8"))
    return rows


def write(place: Place, name: str, rows: list[dict[str, Any]]) -> None:
    """The rows as JSON, and their means over seeds as a Markdown table, best first."""
    TABLES.mkdir(parents=True, exist_ok=True)
    name = f"{place.tables}{name}"
    (TABLES / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    sizes = rows[0]["sizes"]
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["recipe"], row["peak"]), []).append(row)
    ranked = sorted(groups.items(), key=lambda item: mean(row["losses"][-1] for row in item[1]))
    head = ["Recipe", "Peak", *sizes, *(f"jump to {size}" for size in sizes[1:]), "Seeds"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for (recipe, peak), of_seeds in ranked:
        losses = [_spread([row["losses"][number] for row in of_seeds]) for number in range(len(sizes))]
        jumps = [f"{mean(row['jumps'][number] for row in of_seeds):+.3f}" for number in range(len(sizes) - 1)]
        lines.append([recipe, f"{peak:g}", *losses, *jumps, str(len(of_seeds))])
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    note = (
        "Held-out loss in nats at the end of each stage (mean ± standard deviation of seeds); jump: loss right after "
    )
    note += "growth less the loss before. Keys of all stages: the JSON file beside this one."
    (TABLES / f"{name}.md").write_text(f"# {name}\n\n{text}\n\n{note}\n", encoding="utf-8")
    print(text)


def _spread(losses: list[float]) -> str:
    return f"{mean(losses):.4f}" + (f" ± {stdev(losses):.4f}" if len(losses) > 1 else "")


class Told:
    """Prints a line when a stage is done."""

    def __init__(self, stages: int) -> None:
        self.left = stages

    def finished(self, stage: Stage) -> None:
        self.left -= 1
        print(f"{stage.path.name} is done, {self.left} to go", flush=True)

    def retrying(self, stage: Stage, reason: str) -> None:
        print(f"{stage.path.name} again: {reason}", flush=True)

    def started(self, *_: object) -> None: ...
    def queued(self, *_: object) -> None: ...
    def waiting(self, *_: object) -> None: ...
    def event(self, *_: object) -> None: ...
    def tick(self) -> None: ...


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=["tune", "rank", "again"])
    parser.add_argument("--parallel", type=int, default=2, help="stages side by side")
    parser.add_argument("--elsewhere", action="store_true", help="on another corpus and shape: progressive_small")
    arguments = parser.parse_args()
    place = ELSEWHERE if arguments.elsewhere else HERE
    {"tune": tune, "rank": rank, "again": again}[arguments.phase](place, arguments.parallel)
