"""Settings of the rejection of growths."""

from dataclasses import dataclass
from typing import Annotated

from tfscale.ranges import Amount, Range

Excess = Annotated[float, Range(above=-10, below=10, what="nats of loss", such_as="0.1")]
"""A difference of losses in nats, above -10 and below 10."""


@dataclass(frozen=True)
class RejectGrowthPart:
    """Settings of the test that accepts or rejects each growth (`tfscale.plan.rejection`)."""

    after_tokens: Amount
    """Number of tokens that the grown model is trained on before its validation loss decides; less than those of its
    stage."""
    bound: Excess
    """Largest allowed excess of this loss over the parent's last validation loss, in nats."""
