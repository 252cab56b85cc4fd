"""The comparison as rows: each size of each arm, what it cost and how it stands against the chain."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tfscale.analysis.bootstrap import NoiseFloor, Sample, Source, draw_together, noise_floor, sample
from tfscale.analysis.costs import cumulative, family, marginal, mean
from tfscale.analysis.curves import ArmCurve, Measure, StageCurve, Totals
from tfscale.analysis.equal_cost import EqualCompute, EqualPerplexity, at_equal_compute, at_equal_perplexity
from tfscale.analysis.intervals import Interval, interval_of

Status = Literal["finished", "unfinished", "missing"]


@dataclass(frozen=True)
class Row:
    """One size of one arm, over its seeds. Measurements are None until a run of it has finished, costs until all have,
    comparisons until both sides have runs that finished."""

    size: str
    arm: str
    title: str
    kind: str
    keys: tuple[str, ...]
    """The stages that the row's own numbers come from, one a seed."""
    chain_keys: tuple[str, ...]
    """The chain's stages that the comparisons are with. Empty for the chain itself, and where it has no such size."""
    rests_on: tuple[str, ...]
    """Every stage that some number of the row comes from: these, their parents, and the arm's smaller sizes."""
    seeds: tuple[int | None, ...]
    status: Status
    """`finished`: all seeds have."""
    parameters: int | None
    loss: float | None
    """Nats a token, the mean over seeds."""
    perplexity: float | None
    """exp(loss)."""
    perplexity_interval: Interval | None
    """None: not known."""
    perplexity_over: tuple[Source, ...]
    bits_per_byte: float | None
    cumulative: Totals | None
    marginal: Totals | None
    family: Totals | None
    """The costs are means over seeds."""
    equal_compute: EqualCompute | None
    """Against the chain, at the chain's cumulative cost."""
    equal_perplexity: EqualPerplexity | None
    """Against the chain, at this arm's final perplexity."""
    cost_ratio: float | None
    """This run's cumulative cost over the chain's, whatever their perplexities. No speed-up, unless those happen to be
    equal."""

    @property
    def shared(self) -> bool:
        """The row's runs are the chain's own: the same stages in both arms."""
        return self.keys == self.chain_keys


@dataclass(frozen=True)
class Table:
    """A comparison of arms, size by size."""

    measure: Measure
    """What equal compute, speed-up and saving are counted in. The costs stand in every measure."""
    chain: str
    """Name of the arm that the others are compared with."""
    heldout_tokens: int | None
    noise: NoiseFloor | None
    """None: not known."""
    rows: tuple[Row, ...]
    """By size, in the chain's order; within a size in the order of the arms."""
    tuning_flops: float | None = None
    """What choosing the arms' learning rates has cost, in none of the rows; None: not stated."""

    @property
    def sizes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.size for row in self.rows))

    def of_size(self, size: str) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.size == size)

    @property
    def unfinished(self) -> tuple[Row, ...]:
        """Rows whose runs are missing or under way."""
        return tuple(row for row in self.rows if row.status != "finished")


def compare(
    arms: Sequence[ArmCurve],
    measure: Measure = "flops",
    assumed_noise: float | None = None,
    tuning_flops: float | None = None,
) -> Table:
    """The comparison of curves. The first chain is the one that all other arms are compared with.

    Args:
        assumed_noise: the noise floor in nats where no run has several seeds to tell it; None: not known then.
        tuning_flops: what choosing the arms' learning rates has cost; None: not stated.

    Raises:
        ValueError: no chain among the arms.
    """
    chain = the_chain(arms)
    sizes = tuple(dict.fromkeys(size for arm in (chain, *arms) for size in arm.sizes))
    pairs = [(arm, size) for size in sizes for arm in arms if size in arm.sizes]
    samples = {(arm.name, size): sample(arm.replicates(size), measure) for arm, size in pairs}
    floor = noise_floor((each for each in samples.values() if each), assumed_noise)
    lineage = {stage.key: stage.parent for arm in arms for stage in arm.stages}

    def row(arm: ArmCurve, size: str) -> Row:
        other = None if arm is chain else chain.replicates(size)
        mine, theirs = samples[arm.name, size], samples.get((chain.name, size))
        return _row(arm, size, mine, other or (), theirs if other else None, floor, lineage, measure)

    heldout = {stage.heldout_tokens for arm in arms for stage in arm.stages}
    rows = tuple(row(arm, size) for arm, size in pairs)
    return Table(measure, chain.name, heldout.pop() if len(heldout) == 1 else None, floor, rows, tuning_flops)


def the_chain(arms: Sequence[ArmCurve]) -> ArmCurve:
    """The first chain among the arms.

    Raises:
        ValueError: there is none.
    """
    for arm in arms:
        if arm.kind == "chain":
            return arm
    raise ValueError(
        f"a comparison needs a chain; the arms are: {', '.join(f'{arm.name} ({arm.kind})' for arm in arms) or 'none'}"
    )


def _row(
    arm: ArmCurve,
    size: str,
    mine: Sample | None,
    chain: Sequence[StageCurve],
    theirs: Sample | None,
    floor: NoiseFloor | None,
    lineage: dict[str, str | None],
    measure: Measure,
) -> Row:
    runs = arm.replicates(size)
    ends = [run.end for run in runs if run.end]
    loss = float(np.mean([end.loss for end in ends])) if ends else None
    own_family = [stage.key for s in arm.sizes[: arm.sizes.index(size) + 1] for stage in arm.replicates(s)]
    drawn = draw_together(mine) if mine and mine.finished else None
    cost, chain_cost = mean([cumulative(run) for run in runs]), mean([cumulative(run) for run in chain])
    return Row(
        size=size,
        arm=arm.name,
        title=arm.title,
        kind=arm.kind,
        keys=tuple(run.key for run in runs),
        chain_keys=tuple(run.key for run in chain),
        rests_on=_with_ancestors([*own_family, *(run.key for run in chain)], lineage),
        seeds=tuple(run.seed for run in runs),
        status=_status(runs),
        parameters=runs[0].parameters,
        loss=loss,
        perplexity=None if loss is None else math.exp(loss),
        perplexity_interval=interval_of(np.exp(drawn.curves[0].losses[:, -1])) if drawn and drawn.over else None,
        perplexity_over=drawn.over if drawn else (),
        bits_per_byte=float(np.mean([end.bits_per_byte for end in ends])) if ends else None,
        cumulative=cost,
        marginal=mean([marginal(run) for run in runs]),
        family=mean([family(arm.of_seed(run.seed), size) for run in runs]),
        equal_compute=at_equal_compute(theirs, mine),
        equal_perplexity=at_equal_perplexity(theirs, mine, floor),
        cost_ratio=cost.of(measure) / chain_cost.of(measure) if cost and chain_cost else None,
    )


def _status(runs: Sequence[StageCurve]) -> Status:
    if all(run.finished for run in runs):
        return "finished"
    return "unfinished" if any(run.evaluations for run in runs) else "missing"


def _with_ancestors(keys: Sequence[str], lineage: dict[str, str | None]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    waiting = list(keys)
    while waiting:
        key = waiting.pop(0)
        found[key] = None
        parent = lineage.get(key)
        if parent is not None and parent not in found:
            waiting.append(parent)
    return tuple(found)
