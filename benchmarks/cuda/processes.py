"""Trains and grows stages in processes of their own, with the commands of `tfscale.orchestrate.launchers`, which a bare
machine cannot import."""

from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from benchmarks.checkout import import_from_checkout
from tfscale import children
from tfscale.stage.events import Event, read_events
from tfscale.training.allocator import allocator

LOG_CHARACTERS = 600


class StageFailed(Exception):
    """A stage's process has ended with another exit code than it should have."""


@dataclass(frozen=True)
class StageProcess:
    """A running process and the stage that it works on."""

    folder: Path
    process: Popen[bytes]

    def finish(self, expected: int = 0) -> None:
        """Return when the process has ended.

        Raises:
            StageFailed: with another exit code than the expected one.
        """
        code = self.process.wait()
        if code != expected:
            end = _log(self.folder).read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
            raise StageFailed(f"{self.folder.name}: exit code {code}, expected {expected}: {end}")


def start_training(folder: Path) -> StageProcess:
    """Start to train a stage."""
    return _start("tfscale.training", folder)


def start_growing(folder: Path) -> StageProcess:
    """Start to grow a stage's first checkpoint."""
    return _start("tfscale.growth", folder)


def _start(module: str, folder: Path) -> StageProcess:
    command = children.python(module, str(folder), "--supervised")
    environment = children.environment(import_from_checkout(), defaults=allocator())
    with _log(folder).open("ab") as output:
        return StageProcess(folder, children.start(command, environment, stdout=output, stderr=output))


def _log(folder: Path) -> Path:
    return folder.with_suffix(".log")


def events_of(folder: Path, kind: str) -> list[Event]:
    """The events of one kind in a stage's history."""
    return [event for event in read_events(folder) if event["event"] == kind]
