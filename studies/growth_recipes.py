"""Compare growth recipes by their loss at equal compute. docs/study.md presents the results.

    python -m studies.growth_recipes tune      trains every recipe at several learning rates, seed 0
    python -m studies.growth_recipes rank      trains the best recipes and the paper's at their best rates, seeds 1 to 3
    python -m studies.growth_recipes again     repeats one chain of `rank` and expects identical results

--elsewhere compares the best recipe, the recipe from which it derives, and the paper's recipe on another corpus and
shape, which were not used to choose anything. Each cell is a chain of `progressive_tiny_adamw`, or of
`progressive_small_adamw` with --elsewhere, with some settings changed. Finished stages are not trained again, and
`tfscale status` shows the state of a cell. All cells are evaluated on validation text that no comparison reports. The
tables are written to docs/measurements/study.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from studies.tables import page, table, write_page
from studies.training import planned, prepare, train_all
from tfscale.plan.plan import Plan
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
"""Settings of each recipe, and the factors to try for the learning rates of its grown stages. A factor of 1 is the rate
of the schedule, which was tuned for `grouped`."""

OTHER_TEXT = 65_536
"""Position in tokens of the validation text of all cells, after the text on which comparisons are evaluated."""
TUNING_SEED = 0
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Setup:
    """Schedule and recipes of a comparison."""

    tables: str
    """Prefix of the file names of the tables."""
    schedule: str
    peaks: dict[str, tuple[float, ...]]
    """Factors of the learning rate to try, by recipe."""
    finalists: int
    """Number of recipes that `rank` trains in addition to the paper's."""


HERE = Setup("", "progressive_tiny_adamw", {name: peaks for name, (_, peaks) in RECIPES.items()}, finalists=3)
ELSEWHERE = Setup(
    "elsewhere_",
    "progressive_small_adamw",
    {"grouped, fast new rows": (0.25, 0.5, 1, 2), "grouped": (0.5, 1, 2), "paper": (1, 2, 4, 8)},
    finalists=1,
)


@dataclass(frozen=True)
class Cell:
    """Chain with one recipe, learning rate and seed."""

    recipe: str
    peak: float
    seed: int
    plan: Plan
    validation_start: int

    def row(self) -> dict[str, Any]:
        """Return the measurements of the finished chain, with one value per stage, and the keys of its stages."""
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


def make_cell(
    setup: Setup, recipe: str, peak: float, seed: int, more: Sequence[str] = (), validation_start: int = OTHER_TEXT
) -> Cell:
    """Plan the chain of a recipe. Seeds differ in the initial weights and in the order of the text."""
    base = [f"schedule={setup.schedule}", f"seed={seed}", f"data.shuffle_seed={seed}"]
    base.append(f"data.validation_start={validation_start}")
    plan = planned([*base, *RECIPES[recipe][0], f"growth.peak={peak}", *more])
    return Cell(recipe, peak, seed, prepare(plan), validation_start)


def train(cells: Sequence[Cell], parallel: int) -> None:
    """Train all unfinished stages of the cells, `parallel` stages at a time."""
    train_all((each.plan.chain.stages for each in cells), parallel)


def tune(setup: Setup, parallel: int) -> None:
    """Train every recipe with every learning rate, and write the table `tune`."""
    cells = [make_cell(setup, name, peak, TUNING_SEED) for name, peaks in setup.peaks.items() for peak in peaks]
    train(cells, parallel)
    write(setup, "tune", [each.row() for each in cells])


def finalists(setup: Setup) -> dict[str, float]:
    """Return the best recipes by the loss of the last stage, and the paper's recipe, each with its best rate."""
    ranked = sorted(read(setup, "tune"), key=lambda row: row["losses"][-1])
    best: dict[str, float] = {}
    for row in ranked:
        best.setdefault(row["recipe"], row["peak"])
    return {
        name: peak for number, (name, peak) in enumerate(best.items()) if number < setup.finalists or name == "paper"
    }


def rank(setup: Setup, parallel: int) -> None:
    """Train the finalists with seeds that were not used to choose them, and write the table `rank`."""
    cells = [make_cell(setup, recipe, peak, seed) for seed in SEEDS for recipe, peak in finalists(setup).items()]
    train(cells, parallel)
    write(setup, "rank", [each.row() for each in cells])


def again(setup: Setup, parallel: int) -> None:
    """Train the first chain of the table `rank` again in a temporary folder, and exit with an error if any result
    differs."""
    recorded = read(setup, "rank")[0]
    with TemporaryDirectory() as folder:
        # The recorded ranking was evaluated on the text of the comparisons, whose position its table omits.
        recorded = {"validation_start": 0} | recorded
        start = recorded["validation_start"]
        made = make_cell(setup, recorded["recipe"], recorded["peak"], recorded["seed"], (f"runs={folder}",), start)
        train([made], parallel)
        row = made.row()
    if row != recorded:
        raise SystemExit(f"results differ: {row}\nrecorded: {recorded}")
    print(f"{row['recipe']}, seed {row['seed']}: keys and losses are identical, {row['losses']}")


def read(setup: Setup, name: str) -> list[dict[str, Any]]:
    """Return the rows of a table."""
    rows: list[dict[str, Any]] = json.loads((TABLES / f"{setup.tables}{name}.json").read_text(encoding="utf-8"))
    return rows


def write(setup: Setup, name: str, rows: list[dict[str, Any]]) -> None:
    """Write the rows as JSON, and their means over seeds as a page."""
    note = (
        "Validation loss in nats at the end of each stage (mean ± standard deviation over seeds). A jump is the loss "
        "after growth minus the loss before. The JSON file of the same name has the keys of all stages."
    )
    write_results(f"{setup.tables}{name}", rows, ranking(rows), note)


def ranking(rows: list[dict[str, Any]]) -> str:
    """Return the means of the rows over seeds as a table, sorted by the last loss."""
    sizes = rows[0]["sizes"]
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["recipe"], row["peak"]), []).append(row)
    lines = []
    for (recipe, peak), of_seeds in sorted(groups.items(), key=lambda item: mean(row["losses"][-1] for row in item[1])):
        losses = [_spread([row["losses"][number] for row in of_seeds]) for number in range(len(sizes))]
        jumps = [f"{mean(row['jumps'][number] for row in of_seeds):+.3f}" for number in range(len(sizes) - 1)]
        lines.append([recipe, f"{peak:g}", *losses, *jumps, str(len(of_seeds))])
    return table("lr", ["Recipe", "Peak", *sizes, *(f"jump to {size}" for size in sizes[1:]), "Seeds"], lines)


def write_results(name: str, rows: list[dict[str, Any]], *blocks: str) -> None:
    """Write the rows of a table as JSON, and a page with the table."""
    write_page(TABLES / f"{name}.md", page(name, *blocks))
    (TABLES / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _spread(losses: list[float]) -> str:
    return f"{mean(losses):.4f}" + (f" ± {stdev(losses):.4f}" if len(losses) > 1 else "")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=["tune", "rank", "again"])
    parser.add_argument("--parallel", type=int, default=2, help="number of stages to train in parallel")
    parser.add_argument(
        "--elsewhere", action="store_true", help="use progressive_small_adamw: another corpus and shape"
    )
    arguments = parser.parse_args()
    setup = ELSEWHERE if arguments.elsewhere else HERE
    {"tune": tune, "rank": rank, "again": again}[arguments.phase](setup, arguments.parallel)
