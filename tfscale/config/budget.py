"""The setting `budget`, which limits the model FLOPs or the wall-clock time of one command that trains."""

import math
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Budget:
    """Upper limits of one command that trains. An infinite value means no limit."""

    flops: float = math.inf
    """Maximum model FLOPs of training, without the FLOPs of optimizer updates."""
    seconds: float = math.inf
    """Maximum wall-clock time of training in seconds."""


def read_budget(text: str) -> Budget:
    """Return the budget that a text such as 1e15 (FLOPs), 2h, 90m, 30s or 1.5d describes. Raise ValueError if the text
    has another format, or if the number is 0 or too large for a float."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\+?\d+)?)([smhd]?)", text)
    amount = float(match[1]) if match else 0.0
    if match is None or not 0 < amount < math.inf:
        raise ValueError("must be a number of FLOPs or a time, above 0; try 1e15, 2h, 90m or 30s")
    return Budget(seconds=amount * _SECONDS[match[2]]) if match[2] else Budget(flops=amount)


def _checked(text: str) -> str:
    read_budget(text)
    return text


BudgetText = Annotated[str, AfterValidator(_checked)]
"""A budget as text, in a format that `read_budget` reads."""
