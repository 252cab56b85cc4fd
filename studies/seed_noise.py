"""Noise of single seeds, measured on the small chain and its baselines with three seeds.

    python -m studies.seed_noise docs/measurements/seed_noise [KEY=VALUE ...]

Reads the stages of `make reproduce-figure`, and trains those that are missing. The noise floor below the table is the
value of `analysis.noise_floor` in `progressive_tiny`.

The noise floor is the difference of final losses that a chain and another arm with one seed each exceed by chance with
a probability of 5%: t sqrt(c + a), where c is the variance of the chain over seeds, a is that of the other arms, and t
is the quantile of Student's t distribution with the degrees of freedom of Welch and Satterthwaite. Variances are pooled
over sizes. The sizes of the chain share a base, so c has as many degrees of freedom as one size; those of the other
arms are independent runs.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from studies.tables import page, run_study, table
from studies.training import loss_of, planned, prepare, train_all
from tfscale.analysis.intervals import Array
from tfscale.analysis.noise import t_quantile
from tfscale.plan.arms import Arm
from tfscale.plan.plan import Plan


@dataclass(frozen=True)
class Pair:
    """Final losses of the chain and of another arm at one size, by seed."""

    size: str
    title: str
    chain: Array
    arm: Array


def pairs(plan: Plan) -> list[Pair]:
    """Return a `Pair` for each other arm and size, except where the arm shares its runs with the chain."""
    chain, *others = plan.arms
    return [
        Pair(size, arm.title, losses(chain, size), losses(arm, size))
        for size in dict.fromkeys(stage.size for stage in chain.stages)
        for arm in others
        if keys(arm, size) and keys(arm, size) != keys(chain, size)
    ]


def keys(arm: Arm, size: str) -> list[str]:
    """Return the keys of an arm's models of one size."""
    return [stage.key for stage in arm.stages if stage.size == size]


def losses(arm: Arm, size: str) -> Array:
    """Return the final losses of an arm's models of one size, by seed."""
    return np.array([loss_of(stage) for stage in arm.stages if stage.size == size])


def noise_floor(found: list[Pair]) -> tuple[float, float]:
    """Return the noise floor of single seeds in nats, and its degrees of freedom."""
    chains = {pair.size: pair.chain for pair in found}
    freedom = len(found[0].chain) - 1
    chain, arm = (
        float(np.mean([run.var(ddof=1) for run in runs])) for runs in (chains.values(), [p.arm for p in found])
    )
    welch = (chain + arm) ** 2 / (chain**2 / freedom + arm**2 / (freedom * len(found)))
    return t_quantile(welch) * math.sqrt(chain + arm), welch


def rows(found: list[Pair]) -> Iterator[list[str]]:
    """Yield a row with the standard deviations over seeds for each size and arm."""
    for pair in found:
        deviations = [f"{values.std(ddof=1):.4f}" for values in (pair.chain, pair.arm, pair.chain - pair.arm)]
        yield [pair.size, pair.title, *deviations]


def study(overrides: list[str]) -> str:
    """Train the missing stages, and return the standard deviations over seeds and the noise floor as a page."""
    plan = prepare(planned(["schedule=progressive_tiny", "baseline=scratch", "seeds=3", *overrides]))
    train_all(replicate.stages for replicate in plan.replicates)
    found = pairs(plan)
    floor, freedom = noise_floor(found)
    note = (
        f"Standard deviations over {len(found[0].chain)} seeds of the final validation loss, in nats per token. "
        f"Noise floor of single seeds: {floor:.4f} nats, with {freedom:.1f} degrees of freedom."
    )
    head = ["Size", "Arm", "of the chain", "of the arm", "of the difference by seed"]
    return page("Noise of single seeds", table("llr", head, rows(found)), note)


if __name__ == "__main__":
    run_study(study)
