"""The interface between the orchestrator and the launchers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tfscale.stage.folder import Stage

Phase = Literal["growing", "training"]


class LaunchFailed(Exception):
    """Error raised when stages could not be started, with the reason."""


@dataclass(frozen=True)
class Ending:
    """Result of an attempt to run a stage."""

    kind: Literal["finished", "stopped", "died", "refused"]
    """Kind of result. `stopped`: on request, or because another process works on the stage. `refused`: because of the
    settings or an action of the user, so that another attempt would not help."""
    how: str
    """Description of the result, such as `exit code 1`."""


class Attempt(Protocol):
    """Interface of an attempt to run a stage, which is a process or a job."""

    @property
    def phase(self) -> Phase:
        """Current or last phase of the attempt."""

    @property
    def log(self) -> Path: ...

    @property
    def job(self) -> str | None:
        """ID of the job in the queue of a cluster, or None if the attempt is not a job."""

    def poll(self) -> Ending | None:
        """Return the result of the attempt, or None while it is running."""

    def is_running(self) -> bool:
        """Return False if the attempt is a job that waits in a queue and does not update the heartbeat file."""

    def stop(self) -> None:
        """Ask the attempt to save a checkpoint and end. A second call ends the attempt immediately."""


class Launcher(Protocol):
    """Interface of a launcher, which runs stages."""

    max_parallel: int
    """Number of stages that may run at the same time."""
    is_detached: bool
    """True if attempts continue when this process ends."""
    poll_seconds: float
    """Time between two polls of the attempts."""

    def start(self, stages: Sequence[Stage], limits: Mapping[str, int]) -> list[Attempt]:
        """Start an attempt to run each stage, whose folder is prepared, or raise LaunchFailed. `limits` are steps after
        which stages must stop with a checkpoint, by key."""

    def follow(self, stage: Stage) -> Attempt | None:
        """Return the running attempt of another tfscale process, or None."""

    def describe_stop(self, attempts: Sequence[Attempt]) -> str:
        """Return a message on what happens to the running attempts after a request to stop."""
