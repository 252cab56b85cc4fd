"""Scaling laws of the grid of small chains, fitted to the runs that `studies.when_to_grow` has written.

python -m studies.grid_laws FOLDER     # reads FOLDER/runs.json, writes laws.md, residuals.svg and residuals.png
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studies.grid_runs import RUNS, StudyRun, measured_growth, measured_scratch, read_study
from studies.tables import page, table, with_range, write_page
from tfscale.advise.law import LEVEL, REFITS, Law, fit, interval
from tfscale.advise.residuals import residual_figure
from tfscale.analysis.style import render
from tfscale.text import count


@dataclass(frozen=True, eq=False)
class StudyLaws:
    """Laws of one corpus."""

    growth: Law
    scratch: dict[int, Law]
    """Law of each size from scratch, by number of parameters."""


def fit_study(runs: Sequence[StudyRun]) -> StudyLaws:
    """Return the laws of the corpus of the first run, which has most of the grid."""
    alike = [run for run in runs if run.corpus == runs[0].corpus]
    return StudyLaws(fit(measured_growth([run for run in alike if run.base_tokens])), fit_scratch(alike))


def fit_scratch(runs: Sequence[StudyRun]) -> dict[int, Law]:
    """Return the law of each size from scratch with enough runs, by number of parameters, for runs on one corpus."""
    scratch = [run for run in runs if not run.base_tokens]
    sizes = sorted({run.parameters for run in scratch})
    by_size = {size: measured_scratch([run for run in scratch if run.parameters == size]) for size in sizes}
    return {size: fit(measured) for size, measured in by_size.items() if measured.suffices}


def named(laws: StudyLaws) -> dict[str, Law]:
    """Return the laws by their titles."""
    scratch = {f"{size / 1000:.0f}K from scratch": law for size, law in laws.scratch.items()}
    return scratch | {"growth from 25K": laws.growth}


def write_laws(folder: Path) -> None:
    """Fit the laws to the runs of a folder, write tables and a figure of the residuals, and print the tables."""
    runs = read_study(folder / RUNS)
    laws = named(fit_study(runs))
    corpora = [[run for run in runs if run.corpus == corpus] for corpus in dict.fromkeys(run.corpus for run in runs)]
    note = (
        "L = E + exp(b0 + b1 z1 + ...), where each z is the logarithm of a variable minus its mean over the runs. "
        "Exponents are b1, b2, ... in the order of the variables: model FLOPs from scratch; by growth the exponent of "
        "E in the growth factor, then base tokens, tokens after growth, growth factor and the product of the first "
        "two. Residuals and the noise between seeds are "
        f"standard deviations as a fraction of the loss. [low, high]: {LEVEL:.0%} intervals from {REFITS} refits to "
        "resampled runs."
    )
    head = ["Law", "Runs", "E", "Exponents", "Residuals", "Between seeds"]
    rows = [law_row(name, law) for name, law in laws.items()]
    cells = [block for alike in corpora for block in compared_with_scratch(alike)]
    write_page(folder / "laws.md", page("Laws of the grid of small chains", table("lrrlr", head, rows), note, *cells))
    figure = residual_figure(laws)
    (folder / "residuals.svg").write_bytes(render(figure, "svg"))
    (folder / "residuals.png").write_bytes(render(figure, "png"))


def law_row(name: str, law: Law) -> list[str]:
    """Return the parameters of a law as a row of the table."""
    slopes = [number for number in range(1, len(law.parameters)) if number != law.measured.floor_parameters]
    refits = np.concatenate([np.exp(law.refits[:, :1]), law.refits[:, slopes]], axis=1)
    best = [law.irreducible, *law.parameters[slopes]]
    ranges = [interval(column) for column in refits.T]
    e, *exponents = (
        with_range(value, around.low, around.high, ".3f") for value, around in zip(best, ranges, strict=True)
    )
    seeds = f"{law.seed_noise:.2%}" if len(set(law.measured.seeds)) > 1 else "one seed"
    return [name, str(len(law.measured.losses)), e, "; ".join(exponents), f"{law.noise:.2%}", seeds]


def compared_with_scratch(runs: Sequence[StudyRun]) -> list[str]:
    """Return a heading, a table and a note with the losses of all chains of the first seed on one corpus, and their
    differences from models from scratch with the same model FLOPs."""
    laws = fit_scratch(runs)
    grown = [run for run in runs if run.parameters in laws and run.base_tokens and run.seed == runs[0].seed]
    after = sorted({run.tokens for run in grown})
    rows = []
    for size, base in sorted({(run.parameters, run.base_tokens) for run in grown}):
        row = {run.tokens: run for run in grown if (run.parameters, run.base_tokens) == (size, base)}
        losses = [f"{row[n].loss:.3f} ({difference(row[n], laws):+.3f})" if n in row else "" for n in after]
        rows.append([f"{size / 1000:.0f}K", count(base), *losses])
    head = ["Size", "Base", *(f"{count(tokens)} after growth" for tokens in after)]
    note = (
        "Loss of the chain and, in brackets, loss of a TokenFormer from scratch of the same size with the same model "
        "FLOPs, by its law, minus that of the chain. Positive differences are in favour of growth. One seed; "
        "differences below 0.03 nats are noise."
    )
    heading = f"## Growth compared with training from scratch, corpus {runs[0].corpus}"
    return [heading, table("lr", head, rows), note]


def difference(run: StudyRun, laws: dict[int, Law]) -> float:
    """Return the loss of a model from scratch with the model FLOPs of a chain, by its law, minus the chain's loss."""
    return float(laws[run.parameters].loss(np.array([[run.flops]]))[0]) - run.loss


if __name__ == "__main__":
    write_laws(Path(sys.argv[1]))
