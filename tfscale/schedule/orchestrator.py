"""Runs the stages of a plan: each in a process of its own, parents first, finished ones never again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tfscale.schedule.arms import ArmStage
from tfscale.schedule.ledger import is_done
from tfscale.training.events import Event, EventTail
from tfscale.training.lock import held
from tfscale.training.preemption import PREEMPTED
from tfscale.training.spec import CHECKPOINTS, STAGE_FILE, spec_to_dict

POLL_SECONDS = 0.1
LOG_LINES = 20

Phase = Literal["growing", "training"]


class View(Protocol):
    """Who watches a run."""

    def started(self, stage: ArmStage, phase: Phase) -> None:
        """A process for the stage has been started."""

    def waiting(self, stage: ArmStage, holder: str) -> None:
        """Another live process works on the stage."""

    def event(self, stage: ArmStage, event: Event) -> None:
        """The stage has written an event."""

    def finished(self, stage: ArmStage) -> None:
        """The stage is done."""

    def tick(self) -> None:
        """Some time has passed."""


class StageFailed(Exception):
    """A stage's process has failed; the message holds the end of its log."""


@dataclass
class _Running:
    stage: ArmStage
    phase: Phase
    process: subprocess.Popen[bytes]
    tail: EventTail


class Orchestrator:
    """Brings stages to their end. `stop` may be called at any time, from a signal handler too."""

    def __init__(self, stages: Sequence[ArmStage], parallel: int, view: View) -> None:
        self._pending = [stage for stage in stages if not is_done(stage)]
        self._parallel, self._view = parallel, view
        self._running: list[_Running] = []
        self._stopping = False

    def stop(self) -> None:
        """Asks every running stage to save and stop, and starts no other. A second call ends them at once."""
        self._stopping = True
        for running in self._running:
            running.process.send_signal(signal.SIGTERM)

    def run(self) -> bool:
        """Runs all stages; False if it was stopped before they were done.

        Raises:
            StageFailed: after the other running stages have stopped, with their checkpoints.
        """
        try:
            while self._running or (self._pending and not self._stopping):
                self._start_ready()
                time.sleep(POLL_SECONDS)
                self._watch()
                self._view.tick()
        finally:
            self._end_all()
        return not self._pending

    def _start_ready(self) -> None:
        if self._stopping:
            return
        unfinished = {stage.key for stage in self._pending}
        busy = {running.stage.key for running in self._running}
        for stage in list(self._pending):
            if len(self._running) >= self._parallel:
                return
            if stage.key in busy or stage.spec.parent in unfinished:
                continue
            if is_done(stage):  # another tfscale has finished it meanwhile
                self._finish(stage)
                continue
            holder = held(stage.path)
            if holder is not None:
                self._view.waiting(stage, holder)
                continue
            self._start(stage)

    def _start(self, stage: ArmStage) -> None:
        prepare_folder(stage)
        grown = stage.spec.parent is None or any((stage.path / CHECKPOINTS).glob("step-*"))
        phase: Phase = "training" if grown else "growing"
        module = "tfscale.training" if phase == "training" else "tfscale.schedule.growing"
        arguments = ["--supervised"] if phase == "training" else []
        process = launch([sys.executable, "-m", module, str(stage.path), *arguments], stage.path / f"{phase}.log")
        tail = EventTail(stage.path)
        tail.new()
        self._running.append(_Running(stage, phase, process, tail))
        self._view.started(stage, phase)

    def _watch(self) -> None:
        for running in list(self._running):
            code = running.process.poll()
            for event in running.tail.new():
                self._view.event(running.stage, event)
            if code is None:
                continue
            self._running.remove(running)
            if code == 0 and running.phase == "training":
                self._finish(running.stage)
            elif code not in (0, PREEMPTED) and not self._stopping:
                raise StageFailed(_failure(running, code))

    def _finish(self, stage: ArmStage) -> None:
        self._pending.remove(stage)
        self._view.finished(stage)

    def _end_all(self) -> None:
        for running in self._running:
            running.process.send_signal(signal.SIGTERM)
        for running in self._running:
            running.process.wait()
        self._running.clear()


def prepare_folder(stage: ArmStage) -> None:
    """Makes the stage's folder and writes what it is, with the present settings of how it is run."""
    stage.path.mkdir(parents=True, exist_ok=True)
    aside = stage.path / f".{STAGE_FILE}.writing"
    aside.write_text(json.dumps(spec_to_dict(stage.spec), indent=2) + "\n", encoding="utf-8")
    aside.rename(stage.path / STAGE_FILE)


def launch(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts a process of its own session, whose output goes to `log` and whose standard input ends with us."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches us alone; we pass it on
        )


def _failure(running: _Running, code: int) -> str:
    log = running.stage.path / f"{running.phase}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    end = "\n".join(f"  {line}" for line in lines) or "  (its log is empty)"
    return f"{running.stage.path.name} failed while {running.phase} ({how}). The end of {log}:\n{end}"
