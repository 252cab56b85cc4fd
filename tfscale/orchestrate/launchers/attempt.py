"""Interface between the orchestrator and the launchers."""

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
    """Kind of result. `finished`: the attempt ended without an error. `stopped`: the attempt ended on request, or
    because another process works on the stage. `died`: the attempt failed, but another attempt may succeed. `refused`:
    the attempt ended because of the settings or an action of the user, so another attempt would not help."""
    how: str
    """Description of the result, such as `exit code 1`."""


class Attempt(Protocol):
    """Interface of a process or job that attempts to run a stage."""

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
        """Return True if the attempt should update the heartbeat file of the stage, and False if it is a job that still
        waits in a queue."""

    def stop(self) -> None:
        """Ask the attempt to save a checkpoint and end. A second call ends the attempt immediately."""


class Launcher(Protocol):
    """Interface of a launcher, which starts stages as processes or jobs."""

    max_parallel: int
    """Maximum number of stages that may run at the same time."""
    is_detached: bool
    """True if attempts continue after this process has ended."""
    poll_seconds: float
    """Time in seconds between two polls of the attempts."""

    def start(self, stages: Sequence[Stage], limits: Mapping[str, int]) -> list[Attempt]:
        """Start an attempt to run each stage, and return the attempts in the order of the stages. The folder of each
        stage must already contain its spec. `limits` maps the keys of stages to the steps after which these stages must
        save a checkpoint and stop. Raise LaunchFailed if the stages cannot be started."""

    def follow(self, stage: Stage) -> Attempt | None:
        """Return the attempt that another tfscale process has started for a stage and that has not ended, or None if
        there is no such attempt."""

    def describe_stop(self, attempts: Sequence[Attempt]) -> str:
        """Return a message that tells the user how a request to stop affects the running attempts."""
