"""Settings of comparisons: inputs that the runs do not record, and published results."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from tfscale.ranges import NonNegative, Range

NoiseFloor = Annotated[float, Range(least=0, below=10, what="nats of loss", such_as="0.005")]
"""A difference of losses in nats, at least 0 and below 10."""


@dataclass(frozen=True)
class PrimaryPart:
    """Primary comparison, which is declared before the runs. All other comparisons are secondary."""

    size: str | None = None
    """Size at which the chain is compared. None: the last size of the schedule."""
    arm: str = "transformer_scratch"
    """Name of the arm with which the chain is compared."""


@dataclass(frozen=True)
class AnalysisPart:
    """Inputs of comparisons that the runs do not record."""

    noise_floor: NoiseFloor | None = None
    """Difference of final losses, in nats, below which two runs with one seed each count as equal. None: unknown, so
    every difference counts."""
    primary: PrimaryPart = field(default_factory=PrimaryPart)
    tuning_flops: NonNegative | None = None
    """FLOPs used to choose the arms' learning rates, as recorded by `tfscale tune --write` and excluded from the costs
    in comparisons. None: unknown."""


@dataclass(frozen=True)
class ReferencePart:
    """Published results that a comparison shows next to the measured results."""

    arms: list[dict[str, Any]] = field(default_factory=list)
    """Published arms in the format that `tfscale.analysis.reference` reads."""
