"""Comparison of arms, with all results that the tables, figures and reports show."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tfscale.analysis.curves import ArmCurve, Measure, read_arms, the_chain
from tfscale.analysis.family import FAMILY_MEASURES, FamilyComparison, compare_families
from tfscale.analysis.growths import GrowthEvent, growths
from tfscale.analysis.reference import published_arms
from tfscale.analysis.scaling_law import ScalingLaw, scaling_laws
from tfscale.analysis.table import Table, compare
from tfscale.plan.arms import Arm


@dataclass(frozen=True, eq=False)
class Comparison:
    """Comparison of a chain with the other arms of an experiment."""

    title: str
    arms: tuple[ArmCurve, ...]
    table: Table
    growths: tuple[GrowthEvent, ...]
    """Losses before and after each growth of the chain."""
    laws: tuple[ScalingLaw, ...]
    """Scaling laws fitted to the arms from scratch."""
    families: tuple[FamilyComparison, ...]
    """Comparisons of family costs between the chain and each arm that has finished all sizes of the chain. There is one
    comparison per arm and measure of cost. For each arm, the comparison in the table's measure comes first."""
    price: float | None
    """Price of a device in US dollars per hour, or None if it is unknown."""
    published: tuple[ArmCurve, ...]
    """Published measurements. They are shown but not compared, because they were measured on other data and
    machines."""

    @property
    def heading(self) -> str:
        """Title of the comparison, followed by the number of validation tokens if it is known."""
        tokens = self.table.heldout_tokens
        return f"{self.title}, {tokens:,} validation tokens" if tokens else self.title


def compare_arms(
    arms: Iterable[Arm],
    title: str,
    measure: Measure = "flops",
    assumed_noise: float | None = None,
    tuning_flops: float | None = None,
    primary: tuple[str, str] | None = None,
    reference: Mapping[str, Any] | None = None,
    price: float | None = None,
) -> Comparison:
    """Compare the measurements in the stage folders of the arms. `reference` contains published points in the form of a
    file in `conf/reference/`. All other arguments are described in `Comparison` and `Table`.

    Raises:
        ValueError: `read_arms` or `published_arms` fails, or there is no chain among the arms.
    """
    curves = read_arms(arms)
    table, chain = compare(curves, measure, assumed_noise, tuning_flops, primary), the_chain(curves)
    measures = dict.fromkeys([measure, *FAMILY_MEASURES])
    others = [arm for arm in curves if arm is not chain]
    families = (compare_families(chain, arm, each, assumed_noise) for arm in others for each in measures)
    return Comparison(
        title,
        curves,
        table=table,
        growths=growths(chain),
        laws=scaling_laws(curves, measure),
        families=tuple(each for each in families if each is not None),
        price=price,
        published=published_arms(reference or {}, curves),
    )
