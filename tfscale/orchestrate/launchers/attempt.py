"""The interface between the orchestrator and its launchers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tfscale.stage.folder import Stage

Phase = Literal["growing", "training"]


class LaunchFailed(Exception):
    """Raised when stages could not be started; the message says why."""


@dataclass(frozen=True)
class Ending:
    """The end of an attempt."""

    kind: Literal["finished", "stopped", "died", "refused"]
    """`stopped`: on request, or because another process holds the stage. `refused`: another attempt would not help,
    because of the user's settings or choice."""
    how: str
    """A description, such as `exit code 1`."""


class Attempt(Protocol):
    """One attempt at a stage."""

    @property
    def phase(self) -> Phase:
        """The phase that it is in, or was in last."""

    @property
    def log(self) -> Path:
        """The log file of the attempt."""

    @property
    def job(self) -> str | None:
        """The identity of its job in a cluster's queue; None without one."""

    def poll(self) -> Ending | None:
        """Return how it ended; None while it runs."""

    def is_running(self) -> bool:
        """Return whether it runs, and so touches its heartbeat file; a job that waits in a queue does not."""

    def stop(self) -> None:
        """Ask it to save and end; on a second call, end it at once."""


class Launcher(Protocol):
    """A way to run stages."""

    places: int
    """The number of stages that may run at the same time."""
    outlives: bool
    """True if attempts continue when this process ends."""

    def wait(self) -> None:
        """Sleep until the next poll."""

    def start(self, stages: Sequence[Stage]) -> list[Attempt]:
        """Start an attempt at each stage; their folders have been prepared.

        Raises:
            LaunchFailed: none was started.
        """

    def follow(self, stage: Stage) -> Attempt | None:
        """Return an attempt at the stage that another tfscale process started and left running; None without one."""

    def parting(self, attempts: Sequence[Attempt]) -> str:
        """Describe what happens to the attempts when the user wants to stop."""
