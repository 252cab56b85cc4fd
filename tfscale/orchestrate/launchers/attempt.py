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
    """Result of an attempt."""

    kind: Literal["finished", "stopped", "died", "refused"]
    """Kind of end: `stopped`, on request or because another process holds the stage; `refused`, for a reason in the
    user's settings or choice, so another attempt would not help."""
    how: str
    """Description of the end, such as `exit code 1`."""


class Attempt(Protocol):
    """An attempt at a stage."""

    @property
    def phase(self) -> Phase:
        """Current or last phase of the attempt."""

    @property
    def log(self) -> Path:
        """Log file of the attempt."""

    @property
    def job(self) -> str | None:
        """ID of the attempt's job in a cluster's queue; None if there is no job."""

    def poll(self) -> Ending | None:
        """Return the result of the attempt; None while it runs."""

    def is_running(self) -> bool:
        """Return True if the attempt runs and so touches its heartbeat file; a job that waits in a queue does not."""

    def stop(self) -> None:
        """Ask the attempt to save and end; on a second call, end it at once."""


class Launcher(Protocol):
    """A way to run stages."""

    places: int
    """Number of stages that may run at the same time."""
    outlives: bool
    """True if attempts continue when this process ends."""

    def wait(self) -> None:
        """Sleep until the next poll."""

    def start(self, stages: Sequence[Stage]) -> list[Attempt]:
        """Start an attempt at each stage, whose folder must have been prepared.

        Raises:
            LaunchFailed: no attempt was started.
        """

    def follow(self, stage: Stage) -> Attempt | None:
        """Return the attempt at the stage that another tfscale process left running, or None if there is none."""

    def parting(self, attempts: Sequence[Attempt]) -> str:
        """Describe what happens to the attempts when the user wants to stop."""
