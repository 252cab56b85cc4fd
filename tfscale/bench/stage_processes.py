"""Processes that train and grow stages, started with the commands of `tfscale.orchestrate.launchers` but without the
libraries that the launchers need."""

from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from tfscale import children
from tfscale.stage.events import Event, read_events
from tfscale.training.allocator import allocator

LOG_CHARACTERS = 600


class StageFailed(Exception):
    """Error raised when the process of a stage ends with an unexpected exit code or too early."""


@dataclass(frozen=True)
class StageProcess:
    """Process that trains or grows a stage."""

    folder: Path
    process: Popen[bytes]

    def finish(self, expected: int = 0) -> None:
        """Wait until the process has ended, and check its exit code.

        Raises:
            StageFailed: the exit code is not `expected`.
        """
        code = self.process.wait()
        if code != expected:
            end = _log(self.folder).read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
            raise StageFailed(f"{self.folder.name}: exit code {code}, expected {expected}: {end}")


def start_training(folder: Path, module: str = "tfscale.training") -> StageProcess:
    """Start the training of a stage, or its growth if `module` is `tfscale.growth`."""
    command = children.python(module, str(folder), "--supervised")
    environment = children.environment(defaults=allocator())
    with _log(folder).open("ab") as output:
        return StageProcess(folder, children.start(command, environment, stdout=output, stderr=output))


def _log(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def events_of(folder: Path, kind: str) -> list[Event]:
    """Return the events of one kind, such as `train`, that a stage has recorded."""
    return [event for event in read_events(folder) if event["event"] == kind]
