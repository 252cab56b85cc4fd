"""Settings of the test that rejects growths with a high validation loss."""

from dataclasses import dataclass
from typing import Annotated

from tfscale.ranges import Amount, Range

Excess = Annotated[float, Range(above=-10, below=10, what="nats of loss", such_as="0.1")]
"""A difference of losses in nats, above -10 and below 10."""


@dataclass(frozen=True)
class RejectGrowthPart:
    """Settings of the test that accepts or rejects each growth (`tfscale.plan.rejection`)."""

    after_tokens: Amount
    """Number of training tokens after which the validation loss of a grown model is tested. It must be less than the
    number of tokens of the stage."""
    bound: Excess
    """Largest allowed excess of the grown model's validation loss over the parent's last validation loss, in nats."""
