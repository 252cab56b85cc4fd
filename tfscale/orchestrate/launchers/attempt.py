"""What the orchestrator knows of where stages run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tfscale.stage.folder import Stage

Phase = Literal["growing", "training"]


class LaunchFailed(Exception):
    """Stages could not be started; the message says why."""


@dataclass(frozen=True)
class Ending:
    """How an attempt has ended."""

    kind: Literal["finished", "stopped", "died", "refused"]
    """`stopped`: on request, or because another process holds the stage. `refused`: by the user's fault or wish, so
    that another attempt would not help."""
    how: str
    """In words, such as `exit code 1`."""


class Attempt(Protocol):
    """One try at a stage."""

    @property
    def phase(self) -> Phase:
        """What it does, or did last."""

    @property
    def log(self) -> Path:
        """Where its output goes."""

    @property
    def job(self) -> str | None:
        """Its identity in a cluster's queue."""

    def poll(self) -> Ending | None:
        """How it has ended; None while it has not."""

    def is_running(self) -> bool:
        """Whether it can give signs of life; a job that waits in a queue cannot."""

    def stop(self) -> None:
        """Asks it to save and end; on a second call it ends at once."""


class Launcher(Protocol):
    """Where stages run."""

    places: int
    """Stages that may run at the same time."""
    outlives: bool
    """Whether attempts go on when this process ends."""

    def wait(self) -> None:
        """Passes the time between two looks at the attempts."""

    def start(self, stages: Sequence[Stage]) -> list[Attempt]:
        """An attempt at each stage; their folders have been prepared.

        Raises:
            LaunchFailed: none was started.
        """

    def follow(self, stage: Stage) -> Attempt | None:
        """The attempt at the stage that another tfscale has started and left going on."""

    def parting(self, attempts: Sequence[Attempt]) -> str:
        """What happens to the attempts when the user wants to stop, in words."""
