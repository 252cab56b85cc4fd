"""Runs the stages of a plan: each in a process of its own, parents first, finished ones never again."""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from tfscale.config.schema import LauncherPart
from tfscale.faults import USER_FAULT
from tfscale.schedule.arms import ArmStage
from tfscale.schedule.ledger import is_done, is_grown
from tfscale.training.events import HEARTBEAT, Event, EventTail, read_events
from tfscale.training.files import write_json
from tfscale.training.lock import held
from tfscale.training.preemption import PREEMPTED
from tfscale.training.spec import STAGE_FILE, spec_to_dict

POLL_SECONDS = 0.1
LOG_LINES = 20
BACK_OFF_SECONDS = 2.0
"""Before a stage that died is taken up again; twice as long each time."""
PATIENCE_SECONDS = 30.0
"""What a stage that hangs gets at most to end by itself."""

Phase = Literal["growing", "training"]


class View(Protocol):
    """Who watches a run."""

    def started(self, stage: ArmStage, phase: Phase) -> None:
        """A process for the stage has been started."""

    def waiting(self, stage: ArmStage, holder: str) -> None:
        """Another live process works on the stage."""

    def retrying(self, stage: ArmStage, reason: str) -> None:
        """The stage's process has died and will be started again."""

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
    end: Event | None = None
    """The last `end` event of this process."""
    beat: float = 0.0
    """Time of the heartbeat file, by its own clock."""
    seen_at: float = 0.0
    """When that changed, by ours."""
    hangs: bool = False


@dataclass
class _Trouble:
    """What a stage has gone through in this run."""

    deaths: int = 0
    not_before: float = 0.0
    micro_batch: int | None = None
    """Halved after running out of memory; None: as its spec says."""


class Orchestrator:
    """Brings stages to their end. `stop` may be called at any time, from a signal handler too."""

    def __init__(self, stages: Sequence[ArmStage], launcher: LauncherPart, view: View) -> None:
        self._pending = [stage for stage in stages if not is_done(stage)]
        self._launcher, self._view = launcher, view
        self._running: list[_Running] = []
        self._troubles: defaultdict[str, _Trouble] = defaultdict(_Trouble)
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
            if len(self._running) >= self._launcher.parallel:
                return
            early = time.monotonic() < self._troubles[stage.key].not_before
            if early or stage.key in busy or stage.spec.parent in unfinished:
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
        prepare_folder(stage, self._troubles[stage.key].micro_batch)
        grown = stage.spec.parent is None or is_grown(stage.path)
        phase: Phase = "training" if grown else "growing"
        module = "tfscale.training" if phase == "training" else "tfscale.schedule.growing"
        arguments = ["--supervised"] if phase == "training" else []
        process = launch([sys.executable, "-m", module, str(stage.path), *arguments], stage.path / f"{phase}.log")
        tail = EventTail(stage.path)
        tail.new()
        self._running.append(_Running(stage, phase, process, tail, seen_at=time.monotonic()))
        self._view.started(stage, phase)

    def _watch(self) -> None:
        for running in list(self._running):
            code = running.process.poll()
            for event in running.tail.new():
                running.end = event if event["event"] == "end" else running.end
                self._view.event(running.stage, event)
            if code is None:
                self._watch_heart(running)
                continue
            self._running.remove(running)
            if code == 0 and running.phase == "training":
                self._finish(running.stage)
            elif (running.hangs or code not in (0, PREEMPTED)) and not self._stopping:
                self._take_up_again(running, code)

    def _watch_heart(self, running: _Running) -> None:
        file, now = running.stage.path / HEARTBEAT, time.monotonic()
        beat = file.stat().st_mtime if file.exists() else 0.0
        if beat != running.beat or running.phase == "growing":
            running.beat, running.seen_at = beat, now
        silent, patience = now - running.seen_at, 60 * self._launcher.hang_minutes
        if patience and silent > patience and not running.hangs:
            running.hangs = True
            running.process.send_signal(signal.SIGTERM)
        elif running.hangs and silent > patience + min(PATIENCE_SECONDS, patience):
            running.process.kill()

    def _take_up_again(self, running: _Running, code: int) -> None:
        """Has a stage whose process died started again, unless its own words say that this would not help.

        Raises:
            StageFailed: it would not, or it has been tried often enough.
        """
        trouble, failure = self._troubles[running.stage.key], _failure(running, code)
        trouble.deaths += 1
        reason = running.end["reason"] if running.end else ""
        hopeless = reason == "failed" or code == USER_FAULT or running.phase == "growing"
        if hopeless or trouble.deaths > self._launcher.retries:
            raise StageFailed(failure)
        if reason == "out_of_memory":
            held_at_once = micro_batch_of(running.stage)
            if held_at_once == 1:
                raise StageFailed(f"{failure}\nIt ran out of memory with one sequence at a time; use a larger device.")
            trouble.micro_batch = -(-held_at_once // 2)
        wait = BACK_OFF_SECONDS * 2 ** (trouble.deaths - 1)
        trouble.not_before = time.monotonic() + wait
        how = f"with {trouble.micro_batch} sequences at a time" if reason == "out_of_memory" else "from its checkpoint"
        self._view.retrying(running.stage, f"{failure}\nTrying again in {wait:.0f} s, {how}.")

    def _finish(self, stage: ArmStage) -> None:
        self._pending.remove(stage)
        self._view.finished(stage)

    def _end_all(self) -> None:
        for running in self._running:
            running.process.send_signal(signal.SIGTERM)
        for running in self._running:
            running.process.wait()
        self._running.clear()


def prepare_folder(stage: ArmStage, micro_batch: int | None = None) -> None:
    """Makes the stage's folder and writes what it is, with the present settings of how it is run.

    Args:
        micro_batch: in place of the one that the settings say.
    """
    stage.path.mkdir(parents=True, exist_ok=True)
    spec = stage.spec
    if micro_batch is not None:
        spec = replace(spec, run=replace(spec.run, micro_batch=micro_batch))
    write_json(stage.path / STAGE_FILE, spec_to_dict(spec))


def micro_batch_of(stage: ArmStage) -> int:
    """Sequences that the stage's last process held at once."""
    started = [event for event in read_events(stage.path) if event["event"] == "start"]
    return int(started[-1]["micro_batch"]) if started else stage.spec.sequences


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
    how = "no sign of life" if running.hangs else how
    end = "\n".join(f"  {line}" for line in lines) or "  (its log is empty)"
    return f"{running.stage.path.name} failed while {running.phase} ({how}). The end of {log}:\n{end}"
