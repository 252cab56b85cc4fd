"""Grid of small chains to which `tfscale advise` fits its scaling laws (docs/advise.md).

    python -m studies.when_to_grow [KEY=VALUE ...]                 prints the pieces of the study and their cost
    python -m studies.when_to_grow [KEY=VALUE ...] --train 1 2     trains these pieces
    python -m studies.when_to_grow [KEY=VALUE ...] --write FOLDER  writes the losses of the finished branches, and laws

On the corpus and shape of `progressive_tiny_trunk`, one trunk of 25K parameters has branches at four budgets from 5 to
2,400 tokens per parameter. From the trunk at each of these budgets, models grow by factors of 2, 3.75 and 8 in
parameter tokens, each with branches at four budgets. A trunk from scratch of each grown size has branches at six
budgets. Four combinations of budgets have two more seeds, and a grid of two by two budgets is trained on a second
corpus and shape. Trunks are shared by all budgets. The study is trained in pieces, each of which takes at most
`LONGEST` seconds at the assumed speeds. Finished stages are not trained again.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from studies.grid_laws import write_laws
from studies.grid_runs import RUNS, finished_runs, write_runs
from studies.training import planned, prepare, train_all
from tfscale.config.schedule import StagePart
from tfscale.models.counts import flops, parameters
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.plan.branches import branch, trunk_through
from tfscale.plan.plan import Plan
from tfscale.plan.specs import Specs, tokenformer
from tfscale.stage.folder import Stage, is_done
from tfscale.text import count, duration, scientific

LONGEST = 40 * 60.0
"""Maximum time of a piece in seconds."""
SPEEDS = {24_700: 140e3, 69_700: 75e3, 146_500: 43e3, 254_000: 26e3}
"""Tokens per second of one core, by number of parameters, with batches of 2,048 tokens."""


@dataclass(frozen=True)
class Grid:
    """Part of the study on one corpus and shape."""

    schedule: tuple[str, ...]
    """Overrides that select the corpus, the shape and the optimizer."""
    base: int
    """Parameter tokens of each query, key and value projection of the base."""
    targets: tuple[int, ...]
    """Parameter tokens of each query, key and value projection of the grown models."""
    before: tuple[int, ...]
    """Budgets of the base in tokens."""
    after: tuple[int, ...]
    """Budgets of the grown models in tokens."""
    seed: int = 0
    scratch: int = 6
    """Number of budgets at which models from scratch have a branch."""


BATCH = 2_048
COMMON = (f"optim.batch_tokens={BATCH}",)
TINY = ("schedule=progressive_tiny_trunk", *COMMON)
SMALL = ("schedule=progressive_tiny_trunk", "model=tokenformer_small", "data=docs", "data.vocab_size=257", *COMMON)
BEFORE = (123_000, 1_000_000, 7_400_000, 59_000_000)
AFTER = (400_000, 1_600_000, 6_400_000, 25_600_000)
GRIDS = (
    Grid(TINY, 16, (32, 60, 128), BEFORE, AFTER),
    *(Grid(TINY, 16, (60,), BEFORE[1::2], AFTER[1::2], seed=seed, scratch=0) for seed in (1, 2)),
    Grid(SMALL, 16, (60,), (1_000_000, 8_000_000), (800_000, 6_400_000), scratch=5),
)


def trunks(grid: Grid, overrides: Sequence[str]) -> Iterator[tuple[Stage, ...]]:
    """Yield the trunks of a grid with their branches: first the trunk of the base, then the trunks that grow from it or
    begin from scratch."""
    plan = plan_of(grid, overrides)
    specs = Specs(plan.experiment, plan.corpus)
    base, *targets = (model_of_tokens(specs, tokens) for tokens in (grid.base, *grid.targets))
    before = trunk_from_scratch(base, whole_steps(grid.before, specs), specs)
    yield with_branches(before, specs)
    for target in targets:
        for parent in before:
            yield with_branches(grown_trunk(parent, target, whole_steps(grid.after, specs), specs), specs)
        if grid.scratch:
            budgets = whole_steps(_budgets(grid, flops(base).training / flops(target).training), specs)
            yield with_branches(trunk_from_scratch(target, budgets, specs), specs)


def plan_of(grid: Grid, overrides: Sequence[str]) -> Plan:
    """Return a plan with the corpus and the recipe of a grid."""
    return planned([*grid.schedule, f"seed={grid.seed}", f"data.shuffle_seed={grid.seed}", *overrides])


def whole_steps(budgets: Sequence[int], specs: Specs) -> list[int]:
    """Return numbers of tokens, rounded to whole steps."""
    batch = specs.experiment.optim.batch_tokens
    return [round(tokens / batch) * batch for tokens in budgets]


def trunk_from_scratch(model: TokenFormerConfig, ends: Sequence[int], specs: Specs) -> Sequence[Stage]:
    """Return the trunk of a model from scratch, with a stage up to each number of tokens in `ends`."""
    return trunk_through(specs.stage("scratch", specs.scratch(model, ends[0], None)), ends, specs)


def grown_trunk(parent: Stage, model: TokenFormerConfig, ends: Sequence[int], specs: Specs) -> Sequence[Stage]:
    """Return the trunk of a model that grows from `parent`, with a stage up to each number of tokens in `ends`."""
    grown = specs.grown(parent, model, ends[0], specs.experiment.growth, None)
    return trunk_through(specs.stage("grown", grown), ends, specs)


def with_branches(trunk: Sequence[Stage], specs: Specs) -> tuple[Stage, ...]:
    """Return the stages of a trunk, each followed by its branch."""
    before = accumulate((stage.spec.tokens for stage in trunk), initial=0)
    return tuple(
        each for stage, tokens in zip(trunk, before, strict=False) for each in (stage, branch(stage, specs, tokens))
    )


def model_of_tokens(specs: Specs, tokens: int) -> TokenFormerConfig:
    """Return the shape of a corpus with a number of parameter tokens in each query, key and value projection."""
    return tokenformer(specs.experiment, StagePart("", tokens), specs.corpus)


def _budgets(grid: Grid, ratio: float) -> list[int]:
    """Return the budgets in tokens of a target model from scratch, which cover the range of the compute of the chains
    that grow to it.

    Args:
        ratio: FLOPs per token of the base, divided by the FLOPs per token of the target.
    """
    low, high = (ratio * grid.before[end] + grid.after[end] for end in (0, -1))
    return [round(tokens) for tokens in np.geomspace(low, high, grid.scratch)]


def pieces(found: Sequence[Sequence[tuple[Stage, ...]]]) -> list[list[tuple[Stage, ...]]]:
    """Return the trunks of several grids in pieces of at most `LONGEST` seconds. The trunks of the bases, from which
    grown trunks begin, come first, in pieces of their own."""
    parts: list[list[tuple[Stage, ...]]] = []
    for group in ([each[0] for each in found], [trunk for each in found for trunk in each[1:]]):
        parts.append([])
        for trunk in group:
            if parts[-1] and seconds([*parts[-1], trunk]) > LONGEST:
                parts.append([])
            parts[-1].append(trunk)
    return parts


def seconds(piece: Sequence[tuple[Stage, ...]]) -> float:
    """Return the assumed training time of trunks on one core."""
    sizes, rates = np.log(list(SPEEDS)), np.log(list(SPEEDS.values()))
    return float(
        sum(
            stage.spec.tokens / np.exp(np.interp(np.log(parameters(stage.spec.model)), sizes, rates))
            for trunk in piece
            for stage in trunk
        )
    )


def cost(piece: Sequence[tuple[Stage, ...]]) -> str:
    """Return the state and the cost of trunks as text."""
    stages = [stage for trunk in piece for stage in trunk]
    spent = sum(stage.spec.tokens * flops(stage.spec.model).training for stage in stages)
    tokens = count(sum(stage.spec.tokens for stage in stages))
    done = sum(map(is_done, stages))
    return (
        f"{len(piece)} trunks, {len(stages)} stages of which {done} are done, {tokens} tokens, "
        f"{scientific(spent)} FLOPs, {duration(seconds(piece))} of one core"
    )


def main(train: Sequence[int], processes: int, folder: Path | None, overrides: Sequence[str]) -> None:
    """Print the pieces of the study and their cost, train some of them, and write the results to `folder`."""
    parts = pieces([list(trunks(grid, overrides)) for grid in GRIDS])
    for number, piece in enumerate(parts, start=1):
        print(f"piece {number}: {cost(piece)}")
    print(f"all: {cost([trunk for piece in parts for trunk in piece])}")
    if train:
        for grid in GRIDS:
            prepare(plan_of(grid, overrides))
    train_all([trunk for number in train for trunk in parts[number - 1]], processes)
    if folder is not None:
        stages = [stage for piece in parts for trunk in piece for stage in trunk]
        write_runs(folder / RUNS, finished_runs(stages))
        write_laws(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, such as runs=FOLDER")
    parser.add_argument("--train", type=int, nargs="+", default=[], metavar="PIECE", help="pieces to train")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="folder for the losses and the laws")
    parser.add_argument("--processes", type=int, default=2, help="stages that are trained at the same time")
    given = parser.parse_args()
    main(given.train, given.processes, given.write, given.overrides)
