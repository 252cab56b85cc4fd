"""The comparison as rows: each size of each arm, what it cost and how it stands against the chain."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tfscale.analysis.costs import (
    EqualCompute,
    EqualPerplexity,
    at_equal_compute,
    at_equal_perplexity,
    cost_ratio,
    cumulative,
    family,
    marginal,
)
from tfscale.analysis.curves import ArmCurve, Measure, StageCurve, Totals, read_arms
from tfscale.schedule.arms import Arm, ArmKind

Status = Literal["finished", "unfinished", "missing"]


@dataclass(frozen=True)
class Row:
    """One size of one arm. Measurements are None until the run has finished, comparisons until both sides have."""

    size: str
    arm: str
    title: str
    kind: ArmKind
    key: str
    """The stage that every number of the row comes from."""
    chain_key: str | None
    """The chain's stage that the comparisons are with. None for the chain itself, and where it has no such size."""
    status: Status
    parameters: int | None
    loss: float | None
    """Nats a token."""
    perplexity: float | None
    bits_per_byte: float | None
    cumulative: Totals | None
    marginal: Totals | None
    family: Totals | None
    equal_compute: EqualCompute | None
    """Against the chain, at the chain's cumulative cost."""
    equal_perplexity: EqualPerplexity | None
    """Against the chain, at this arm's final perplexity."""
    cost_ratio: float | None
    """This run's cumulative cost over the chain's, whatever their perplexities."""

    @property
    def shared(self) -> bool:
        """The row's run is the chain's own: the same stage in both arms."""
        return self.key == self.chain_key


@dataclass(frozen=True)
class Table:
    """A comparison of arms, size by size."""

    measure: Measure
    """What equal compute, speed-up and saving are counted in. The costs stand in every measure."""
    chain: str
    """Name of the arm that the others are compared with."""
    heldout_tokens: int | None
    rows: tuple[Row, ...]
    """By size, in the chain's order; within a size in the order of the arms."""

    @property
    def sizes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.size for row in self.rows))

    def of_size(self, size: str) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.size == size)

    @property
    def unfinished(self) -> tuple[Row, ...]:
        """Rows whose runs are missing or under way."""
        return tuple(row for row in self.rows if row.status != "finished")


def comparison_table(arms: Iterable[Arm], measure: Measure = "flops") -> Table:
    """The comparison of what the arms' folders hold.

    Raises:
        ValueError: no chain among the arms, or what `read_arms` raises.
    """
    return compare(read_arms(arms), measure)


def compare(arms: Sequence[ArmCurve], measure: Measure = "flops") -> Table:
    """The comparison of curves. The first chain is the one that all other arms are compared with.

    Raises:
        ValueError: no chain among the arms.
    """
    chain = the_chain(arms)
    sizes = dict.fromkeys(stage.size for arm in (chain, *arms) for stage in arm.stages)
    rows = [
        _row(arm, stage, None if arm is chain else chain.stage(size), measure)
        for size in sizes
        for arm in arms
        if (stage := arm.stage(size)) is not None
    ]
    heldout = {stage.heldout_tokens for arm in arms for stage in arm.stages}
    return Table(measure, chain.name, heldout.pop() if len(heldout) == 1 else None, tuple(rows))


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


def _row(arm: ArmCurve, stage: StageCurve, chain: StageCurve | None, measure: Measure) -> Row:
    end = stage.end
    return Row(
        size=stage.size,
        arm=arm.name,
        title=arm.title,
        kind=arm.kind,
        key=stage.key,
        chain_key=chain.key if chain else None,
        status="finished" if end else "unfinished" if stage.evaluations else "missing",
        parameters=stage.parameters,
        loss=end.loss if end else None,
        perplexity=end.perplexity if end else None,
        bits_per_byte=end.bits_per_byte if end else None,
        cumulative=cumulative(stage),
        marginal=marginal(stage),
        family=family(arm, stage.size),
        equal_compute=at_equal_compute(chain, stage, measure) if chain else None,
        equal_perplexity=at_equal_perplexity(chain, stage, measure) if chain else None,
        cost_ratio=cost_ratio(chain, stage, measure) if chain else None,
    )
