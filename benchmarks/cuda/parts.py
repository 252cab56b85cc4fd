"""The parts of the check, the most valuable first, and the seconds that each may take."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.cuda.check import Check


@dataclass(frozen=True)
class Part:
    """A process of the check."""

    name: str
    module: str
    """Module of `benchmarks.cuda` that holds its function."""
    function: str
    arguments: tuple[object, ...] = ()

    def run(self, check: "Check") -> None:
        """Run the part in this process."""
        function: Callable[..., None] = getattr(
            importlib.import_module(f"benchmarks.cuda.{self.module}"), self.function
        )
        function(*self.arguments, check)


@dataclass(frozen=True)
class Group:
    """Parts that run side by side, and the seconds that they may take."""

    seconds: float
    parts: tuple[Part, ...]


def _alone(seconds: float, name: str, module: str, function: str, *arguments: object) -> Group:
    return Group(seconds, (Part(name, module, function, arguments),))


CORRECTNESS = Group(
    135,
    (
        Part("golden", "golden", "golden"),
        Part("tokenformer", "models", "check_tokenformer"),
        Part("other_models", "models", "check_other_models"),
        Part("room", "room", "room"),
    ),
)
"""Side by side: they compile for most of their time, and measure no speed."""
GROUPS = (
    _alone(40, "facts", "facts", "facts"),
    CORRECTNESS,
    _alone(60, "training", "training", "training"),
    _alone(60, "step_124M", "steps", "step", "124M", True),
    _alone(80, "step_1.4B", "steps", "step", "1.4B", True),
    _alone(80, "pattention", "pattention", "pattention"),
    _alone(50, "step_354M", "steps", "step", "354M", False),
    _alone(50, "step_757M", "steps", "step", "757M", False),
    _alone(25, "small_models", "steps", "small_models"),
    _alone(40, "kept", "kept", "kept"),
)
PARTS = {part.name: part for group in GROUPS for part in group.parts}
