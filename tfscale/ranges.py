"""Numeric types with a range, for the user's settings and for values in files. Pydantic checks the settings, and
`tfscale.untrusted` checks the values in files."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

LARGEST = 10**18
"""Largest allowed absolute value of an integer. It is far above any sensible setting, and the product of several such
integers does not overflow a float."""
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Range:
    """Range of a number, for use in `Annotated`. The bounds `least` and `most` are inclusive, and `above` and `below`
    are exclusive. Floats must also be finite, and integers at most `LARGEST` in absolute value."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    what: str = ""
    """Name of the quantity in messages, such as "a fraction"."""
    such_as: str = ""
    """Valid value that messages suggest."""
    read: Callable[[Any], Any] | None = None
    """Function that converts the user's value, such as text, to a number before the check, or None to check the value
    itself."""

    def fault(self, value: float) -> str | None:
        """Return the condition that the number violates, as text such as `must be at least 1`, or None if the number is
        valid."""
        if isinstance(value, float) and not math.isfinite(value):
            return "must be a finite number"
        if isinstance(value, int) and abs(value) > LARGEST:
            return "must be at most 10^18"
        if self.least <= value <= self.most and self.above < value < self.below:
            return None
        named = f"{self.what}, {self._bounds()}" if self.what else self._bounds()
        return f"must be {named}" + (f"; try {self.such_as}" if self.such_as else "")

    def _bounds(self) -> str:
        if -math.inf < self.least and self.most < math.inf:
            return f"from {self.least:g} to {self.most:g}"
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if math.isfinite(bound))

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Return the pydantic schema that reads and checks values of the annotated type."""
        from pydantic_core import core_schema

        schema = core_schema.no_info_after_validator_function(self._checked, handler(source))
        return core_schema.no_info_before_validator_function(self.read, schema) if self.read else schema

    def _checked(self, value: float) -> float:
        if fault := self.fault(value):
            raise ValueError(fault)
        return value


def read_amount(value: Any) -> Any:
    """Convert text such as 15B, 300_000, 1.5M or 2e6, or a float without a fractional part, to an integer. Any other
    value is returned unchanged.

    Raises:
        ValueError: the text is not a number in one of these forms, or the number is above 10^18.
    """
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


Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(least=0)]
Rate = Annotated[float, Range(above=0, such_as="3e-4")]
Fraction = Annotated[float, Range(0, 1, what="a fraction", such_as="0.1")]
Momentum = Annotated[float, Range(least=0, below=1, such_as="0.9")]
"""Weight of the previous value in an exponential moving average."""
Factor = Annotated[float, Range(above=0, most=1000, what="a factor", such_as="1")]
Nats = Annotated[float, Range(above=0, below=10, what="nats of loss", such_as="0.02")]
Probability = Annotated[float, Range(least=0, below=1, what="a probability", such_as="0.3")]
Share = Annotated[float, Range(above=0, below=1, what="a fraction", such_as="0.05")]
Whole = Annotated[int, Range()]
Natural = Annotated[int, Range(least=0)]
Count = Annotated[int, Range(least=1)]
Amount = Annotated[int, Range(least=0, read=read_amount)]
"""A number of tokens, which can also be given as a string such as 15B, 1.5M, 300K or 65536."""
AutoCount = Annotated[int, Range(least=0, read=lambda value: 0 if value == "auto" else value)]
"""A non-negative integer. The string `auto` is read as 0."""
