"""Test of the laws of the grid on chains outside the grid (docs/advise.md).

    python -m studies.held_out FOLDER ROUND                            # writes FOLDER/predictions_ROUND.json
    python -m studies.held_out FOLDER ROUND --train [KEY=VALUE ...]    # trains the chains, writes held_out_ROUND.json
    python -m studies.held_out FOLDER ROUND --score                    # compares both, writes held_out_ROUND.md

FOLDER has the runs of the grid (`python -m studies.when_to_grow --write FOLDER`). The chains of each round have another
seed than the grid, and each has a budget or a growth factor that the grid does not have. The loss of a single run is
predicted and, for sizes of the grid, the difference between a model from scratch with the same model FLOPs and the
chain. Predictions are committed before the chains are trained, and cannot be written afterwards. `--score` also shows
what the present intervals say about the same chains.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from studies.grid_laws import StudyLaws, fit_study
from studies.grid_runs import RUNS, finished_runs, read_study, write_runs
from studies.tables import page, table, with_range, write_page
from studies.training import prepare, train_all
from studies.when_to_grow import (
    GRIDS,
    Grid,
    grown_trunk,
    model_of_tokens,
    plan_of,
    trunk_from_scratch,
    whole_steps,
    with_branches,
)
from tfscale.advise.law import LEVEL, interval
from tfscale.advise.runs import growth_factor
from tfscale.analysis.intervals import Interval
from tfscale.models.counts import flops, parameters
from tfscale.plan.branches import trunk_tokens
from tfscale.plan.specs import Specs
from tfscale.stage.folder import Stage
from tfscale.text import count

NOISE = 0.03
"""Largest difference of two single runs that is noise, in nats (`studies.seed_noise`)."""


REVISED = """## The same chains, with the intervals of `tfscale advise` today

These predictions were made after the chains were trained and do not test the laws. Differences here are those of two
single runs; those in the table above are differences of expected losses, without the scatter of runs about the laws."""


@dataclass(frozen=True, order=True)
class Chain:
    """Held-out chain with one growth."""

    target: int
    """Parameter tokens of each query, key and value projection of the grown model."""
    before: int
    """Tokens before growth."""
    after: int
    """Tokens of the trunk after growth. Its branch has a fifth as many."""


@dataclass(frozen=True)
class Round:
    """Held-out chains that are predicted and trained together."""

    seed: int
    chains: tuple[Chain, ...]


ROUNDS = {
    1: Round(
        3,
        (
            Chain(32, 350_000, 12_800_000),
            Chain(32, 350_000, 38_400_000),
            Chain(45, 2_700_000, 3_200_000),
            Chain(60, 60_000, 3_200_000),
            Chain(60, 350_000, 800_000),
            Chain(60, 2_700_000, 12_800_000),
            Chain(60, 20_000_000, 3_200_000),
            Chain(90, 20_000_000, 12_800_000),
            Chain(128, 2_700_000, 200_000),
            Chain(128, 2_700_000, 3_200_000),
        ),
    ),
    2: Round(  # chosen for predicted differences on both sides of 0, most of them above the noise
        4,
        (
            Chain(32, 500_000, 450_000),
            Chain(32, 15_000_000, 2_000_000),
            Chain(60, 200_000, 450_000),
            Chain(60, 5_000_000, 800_000),
            Chain(60, 30_000_000, 1_000_000),
            Chain(128, 200_000, 600_000),
            Chain(128, 500_000, 450_000),
            Chain(128, 1_000_000, 1_000_000),
            Chain(128, 12_000_000, 5_000_000),
            Chain(128, 30_000_000, 2_500_000),
        ),
    ),
}


@dataclass(frozen=True)
class HeldOut:
    """Stages of a held-out chain."""

    base: Stage
    """Last stage of the trunk before growth."""
    end: Stage
    """Branch of the grown model."""
    base_tokens: int
    tokens: int
    """Tokens after growth."""
    flops: float
    """Model FLOPs of the chain."""
    scratch: Stage | None
    """Branch of a model from scratch with the same model FLOPs, or None for sizes that the grid does not have."""


@dataclass(frozen=True)
class Prediction:
    """Prediction for a held-out chain, with `LEVEL` intervals. Losses are in nats per token."""

    parameters: int
    factor: float
    base_tokens: int
    tokens: int
    flops: float
    key: str
    """Key of the branch of the grown model."""
    scratch_key: str | None
    beyond: float
    """Factor by which the chain is outside the range of the grid, or 1 inside."""
    loss: float
    low: float
    high: float
    difference: float | None
    """Loss of a model from scratch minus loss of the chain, or None without a law of the size."""
    difference_low: float | None
    difference_high: float | None


def grid_of(held_out: Round) -> Grid:
    """Return the grid with the seed of a round."""
    return replace(GRIDS[0], seed=held_out.seed)


def plan_chains(held_out: Round, overrides: Sequence[str]) -> tuple[list[HeldOut], list[Stage]]:
    """Return the held-out chains of a round, and the stages of all chains and of the models from scratch."""
    plan = plan_of(grid_of(held_out), overrides)
    specs = Specs(plan.experiment, plan.corpus)
    small, before = model_of_tokens(specs, GRIDS[0].base), sorted({chain.before for chain in held_out.chains})
    ends = whole_steps(before, specs)
    trunk = trunk_from_scratch(small, ends, specs)
    bases, tokens_of = dict(zip(before, trunk, strict=True)), dict(zip(before, ends, strict=True))
    stages, chains = list(trunk), list[HeldOut]()
    for target, same in groupby(sorted(held_out.chains), key=lambda chain: chain.target):
        model, found = model_of_tokens(specs, target), list[HeldOut]()
        for number, group in groupby(same, key=lambda chain: chain.before):
            ends = whole_steps([chain.after for chain in group], specs)
            grown = with_branches(grown_trunk(bases[number], model, ends, specs), specs)
            stages += grown
            for end, branch in zip(ends, grown[1::2], strict=True):
                tokens = end + branch.spec.tokens
                spent = tokens_of[number] * flops(small).training + tokens * flops(model).training
                found.append(HeldOut(bases[number], branch, tokens_of[number], tokens, spent, None))
        if target in GRIDS[0].targets:
            found.sort(key=lambda chain: chain.flops)
            ends = [trunk_tokens(round(chain.flops / flops(model).training), specs) for chain in found]
            scratch = with_branches(trunk_from_scratch(model, ends, specs), specs)
            stages += scratch
            found = [replace(chain, scratch=end) for chain, end in zip(found, scratch[1::2], strict=True)]
        chains += found
    return chains, stages


def predict(chain: HeldOut, laws: StudyLaws) -> Prediction:
    """Return the prediction of the laws for a held-out chain."""
    model = chain.end.spec.model
    size, factor = parameters(model), growth_factor(chain.base.spec.model, model)
    at = np.array([chain.base_tokens, chain.tokens, factor])
    draws = laws.growth.draws(at)
    runs = laws.growth.run_draws(draws)
    around = interval(runs)
    difference, spread = None, None
    if size in laws.scratch:
        law = laws.scratch[size]
        differences = law.run_draws(law.draws(np.array([chain.flops]))) - runs
        difference, spread = float(np.median(differences)), interval(differences)
    return Prediction(
        size, factor, chain.base_tokens, chain.tokens, chain.flops, chain.end.key,
        chain.scratch.key if chain.scratch else None, laws.growth.beyond(at),
        float(np.median(draws)), around.low, around.high,
        difference, spread.low if spread else None, spread.high if spread else None,
    )  # fmt: skip


def score(predictions: Sequence[Prediction], losses: dict[str, float]) -> str:
    """Return the comparison of predictions with the losses of the finished stages, by key, as a table and a note."""
    trained = [each for each in predictions if each.key in losses]
    inside = sum(each.low <= losses[each.key] <= each.high for each in trained)
    widths = [(each.high - each.low) / 2 for each in predictions]
    decided = [_decisions(each, losses) for each in predictions if {each.key, each.scratch_key} <= set(losses)]
    clear = [(ours, truth) for ours, truth in decided if truth != "no difference"]
    right = sum(ours == truth for ours, truth in clear)
    head = ["Size", "Factor", "Tokens before", "Tokens after", "Outside", "Predicted loss", "Measured",
            "Predicted difference", "Measured", "Decision"]  # fmt: skip
    note = (
        f"{inside} of {len(trained)} losses are inside their {LEVEL:.0%} interval; the median half-width is "
        f"{np.median(widths):.3f} nats. Of the {len(clear)} differences above the noise of {NOISE} nats, {right} have "
        "the predicted decision. Losses in nats per token. Differences: loss of a model from scratch with the same "
        "model FLOPs minus loss of the chain. Outside: factor by which the chain is outside the range of the grid. One "
        "seed per chain, which the grid does not have."
    )
    rows = [_row(each, losses) for each in predictions]
    return f"{table('rrrrrlrlrl', head, rows)}\n\n{note}"


def _row(each: Prediction, losses: dict[str, float]) -> list[str]:
    loss, scratch = losses.get(each.key), losses.get(each.scratch_key or "")
    measured = "not trained" if loss is None else f"{loss:.3f}" + ("" if each.low <= loss <= each.high else " outside")
    difference, differs, decision = "", "", ""
    if each.difference is not None and each.difference_low is not None and each.difference_high is not None:
        difference = with_range(each.difference, each.difference_low, each.difference_high, "+.3f")
    if loss is not None and scratch is not None:
        ours, truth = _decisions(each, losses)
        differs, decision = f"{scratch - loss:+.3f}", ours if ours == truth else f"{ours}, measured: {truth}"
    tokens = count(each.base_tokens), count(each.tokens)
    predicted = with_range(each.loss, each.low, each.high, ".3f")
    return [f"{each.parameters / 1000:.0f}K", f"{each.factor:.1f}", *tokens, f"{each.beyond:.1f}", predicted, measured,
            difference, differs, decision]  # fmt: skip


def _decisions(each: Prediction, losses: dict[str, float]) -> tuple[str, str]:
    """Return the predicted and the measured decision of a chain whose runs are finished."""
    assert each.scratch_key is not None
    assert each.difference_low is not None
    assert each.difference_high is not None
    differs = losses[each.scratch_key] - losses[each.key]
    measured = Interval(differs - NOISE, differs + NOISE)
    return _decision(Interval(each.difference_low, each.difference_high)), _decision(measured)


def _decision(difference: Interval) -> str:
    return "grow" if difference.low > 0 else "from scratch" if difference.high < 0 else "no difference"


def main(folder: Path, number: int, train: bool, only_score: bool, overrides: Sequence[str]) -> None:
    """Predict, train or compare."""
    held_out = ROUNDS[number]
    chains, stages = plan_chains(held_out, overrides)
    foreseen, measured = folder / f"predictions_{number}.json", folder / f"held_out_{number}.json"
    laws = fit_study(read_study(folder / RUNS))
    if train:
        prepare(plan_of(grid_of(held_out), overrides))
        train_all([stages])
        write_runs(measured, finished_runs(stages))
    present = [predict(chain, laws) for chain in chains]
    if not (train or only_score):
        if measured.exists():
            raise SystemExit(f"{measured} exists: predictions must be made before the chains are trained; try --score")
        foreseen.write_text(json.dumps([asdict(each) for each in present], indent=1) + "\n", encoding="utf-8")
    predictions = [Prediction(**each) for each in json.loads(foreseen.read_text(encoding="utf-8"))]
    losses = {run.key: run.loss for run in read_study(measured)} if measured.exists() else {}
    revised = [REVISED, score(present, losses)] if present != predictions else []
    title = f"Predictions for held-out chains, round {number}"
    write_page(folder / f"held_out_{number}.md", page(title, score(predictions, losses), *revised))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("round", type=int, choices=ROUNDS)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, such as runs=FOLDER")
    parser.add_argument("--train", action="store_true", help="train the chains that were predicted")
    parser.add_argument("--score", action="store_true", help="only compare predictions with finished runs")
    given = parser.parse_intermixed_args()
    main(given.folder, given.round, given.train, given.score, given.overrides)
