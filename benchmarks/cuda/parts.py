"""Commands of `benchmarks/cuda_check.py`, and their parts with time limits, the most valuable parts first."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.cuda.check import Check


@dataclass(frozen=True)
class Part:
    """Part of the check, which runs in a process of its own."""

    name: str
    module: str
    """Module of `benchmarks.cuda` that contains the function."""
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
    """Parts that run in parallel, with one time limit in seconds."""

    seconds: float
    parts: tuple[Part, ...]


def _alone(seconds: float, name: str, module: str, function: str, *arguments: object) -> Group:
    return Group(seconds, (Part(name, module, function, arguments),))


CORRECTNESS = Group(
    110,
    (
        Part("golden", "golden", "golden"),
        Part("tokenformer", "models", "check_tokenformer"),
        Part("other_models", "models", "check_other_models"),
        Part("room", "room", "room"),
    ),
)
"""Parts that check correctness. They run in parallel, because they mostly compile and do not measure speed."""


@dataclass(frozen=True)
class Command:
    """Groups of parts that run one after another, with a time limit in seconds for all groups together."""

    seconds: float
    groups: tuple[Group, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of all parts."""
        return tuple(part.name for group in self.groups for part in group.parts)


COMMANDS = {
    "check": Command(
        360,
        (
            _alone(30, "facts", "facts", "facts"),
            CORRECTNESS,
            _alone(50, "step_124M", "steps", "step", "124M"),
            _alone(70, "step_1.4B", "steps", "step", "1.4B"),
            _alone(45, "training", "training", "training"),
            _alone(50, "step_354M", "steps", "step", "354M"),
            _alone(50, "step_757M", "steps", "step", "757M"),
            _alone(40, "deterministic", "steps", "deterministic"),
            _alone(80, "pattention", "pattention", "pattention"),
            _alone(25, "small_models", "steps", "small_models"),
            _alone(40, "kept", "kept", "kept"),
        ),
    ),
    "compute": Command(240, (_alone(240, "compute", "compute", "compute"),)),
    "cli": Command(60, (_alone(60, "cli", "cli", "cli"),)),
}
GROUPS = tuple(group for command in COMMANDS.values() for group in command.groups)
PARTS = {part.name: part for group in GROUPS for part in group.parts}


def command_of(name: str) -> Command:
    """Return the command with this name, or a command that runs only the part with this name."""
    if name in COMMANDS:
        return COMMANDS[name]
    seconds = next(group.seconds for group in GROUPS if PARTS[name] in group.parts)
    return Command(seconds, (Group(seconds, (PARTS[name],)),))
