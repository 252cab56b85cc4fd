"""The bounds that a correct CUDA path holds."""

from typing import Literal

Precision = Literal["fp32", "tf32", "bf16"]

OUTPUTS: dict[Precision, float] = {"fp32": 1e-5, "tf32": 1e-3, "bf16": 2e-2}
"""Relative error of logits and losses per sequence: the norm of the difference over the norm."""
GRADIENTS: dict[Precision, float] = {"fp32": 1e-5, "tf32": 1e-3, "bf16": 5e-2}
"""Largest error of gradients, for the tensor with the largest error."""
GROWTH_NATS = 1e-3
"""Difference between a child's held-out loss at step 0 and its parent's last one."""
TWIN_NATS = 5e-2
"""Difference between the last held-out losses of two stages that compute the same in different ways; rounding
explains one or two hundredths."""
PEAK_SHARE = 0.10
"""Difference between the peak memory of a step and the plan's, as a share of the plan's."""
