"""Types of settings: amounts, paths, and numbers within bounds. What each refuses it says as `must be ...; try ...`."""

import math
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

LARGEST = 10**18
"""Largest whole number; far beyond what any machine trains, and small enough for every product of a prediction."""
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def _usable(text: str) -> str:
    """The path with `~` expanded.

    Raises:
        ValueError: no file can have this name here.
    """
    if not text:
        raise ValueError("must name a file or folder; try a name, or leave it out")
    try:
        path = str(Path(text).expanduser()) if text.startswith("~") else text
        Path(path).stat()
    except FileNotFoundError:
        pass  # it will be made, or is told as missing
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"must be a path that can be used here ({reason}); try another one") from None
    return path


PathText = Annotated[str, AfterValidator(_usable)]
"""A file or folder; `~` is the home folder."""


def between(
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    what: str = "",
    such_as: str = "",
) -> AfterValidator:
    """Bounds of a number, for `Annotated`.

    Args:
        what: what the number is, such as "a fraction".
        such_as: a value to try.
    """
    lower = f"above {above:g}" if above > -math.inf else f"at least {least:g}" if least > -math.inf else ""
    upper = f"below {below:g}" if below < math.inf else f"at most {most:g}" if most < math.inf else ""
    bounds = f"from {least:g} to {most:g}" if -math.inf < least and most < math.inf else " and ".join(
        filter(None, (lower, upper))
    )  # fmt: skip
    rule = f"must be {what + ', ' if what else ''}{bounds}" + (f"; try {such_as}" if such_as else "")

    def check(value: float) -> float:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("must be a finite number")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError("must be at most 10^18")
        if not (least <= value <= most and above < value < below):
            raise ValueError(rule)
        return value

    return AfterValidator(check)


def _amount(value: Any) -> Any:
    """15B, 300_000, 1.5M or 2e6 as a whole number; anything else is left to the type check."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][0-9]+)?)\s*([KMBT]?)", value.strip())
        if not match:
            raise ValueError("must be a number of tokens; try 15B, 1.5M, 300K or 65536")
        count = float(match[1].replace("_", "")) * _UNITS[match[2]]
        if count > LARGEST:
            raise ValueError("must be at most 10^18 tokens")
        return round(count)
    return value


Number = Annotated[float, between()]
"""Any finite number."""
Positive = Annotated[float, between(above=0)]
"""A number above 0."""
NonNegative = Annotated[float, between(least=0)]
"""A number, at least 0."""
Rate = Annotated[float, between(above=0, such_as="3e-4")]
"""A learning rate, above 0."""
Fraction = Annotated[float, between(0, 1, what="a fraction", such_as="0.1")]
"""A fraction, from 0 to 1."""
Momentum = Annotated[float, between(least=0, below=1, such_as="0.9")]
"""Share of the old mean in a running one, at least 0 and below 1."""
Whole = Annotated[int, between()]
"""Any whole number up to 10^18, negative ones too."""
Natural = Annotated[int, between(least=0)]
"""A whole number, at least 0."""
Count = Annotated[int, between(least=1)]
"""A whole number, at least 1."""
Amount = Annotated[int, BeforeValidator(_amount), between(least=0)]
"""A count of tokens: 15B, 1.5M, 300K, 65536."""
AutoCount = Annotated[int, BeforeValidator(lambda value: 0 if value == "auto" else value), between(least=0)]
"""A count, or auto (0)."""
