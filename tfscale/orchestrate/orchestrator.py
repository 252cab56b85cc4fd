"""Orchestrator that runs the unfinished stages of a plan with the configured launcher, parents before children."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tfscale.config.budget import Budget
from tfscale.config.machines import LauncherPart
from tfscale.orchestrate.allowance import Allowance
from tfscale.orchestrate.launchers import launcher_of
from tfscale.orchestrate.launchers.attempt import Attempt, Ending, LaunchFailed, Phase
from tfscale.stage.events import HEARTBEAT, Event, EventTail, last_event, read_events
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.lock import held
from tfscale.stage.spec import write_spec

LOG_LINES = 20
BACK_OFF_SECONDS = 2.0
"""Delay in seconds before the first restart of a stage whose process died. The delay doubles with each restart."""
PATIENCE_SECONDS = 30.0
"""Maximum time in seconds that the process of a hanging stage has to end after a request to stop. After this time, the
process is killed."""


class View(Protocol):
    """Interface of a display that shows the progress of a run. `queued` is called if the job of a stage waits in the
    queue of a cluster or already runs, `waiting` if another process or machine works on the stage, and `tick` after
    every poll of all running stages."""

    def started(self, stage: Stage, phase: Phase) -> None: ...
    def queued(self, stage: Stage, job: str) -> None: ...
    def waiting(self, stage: Stage, holder: str) -> None: ...
    def retrying(self, stage: Stage, reason: str) -> None: ...
    def event(self, stage: Stage, event: Event) -> None: ...
    def finished(self, stage: Stage) -> None: ...
    def tick(self) -> None: ...


class Claims(Protocol):
    """Interface of the leases with which machines that share a store avoid training the same stage at the same time."""

    def claim(self, stage: Stage) -> str | None:
        """Take the lease of a stage, unless another machine holds the lease or the stage is finished. Return a
        description of the other machine that holds the lease, or None if there is no such machine."""


class StageFailed(Exception):
    """Error raised when a stage has failed. The message contains the reason and, usually, the end of the stage's
    log."""


@dataclass
class _Running:
    stage: Stage
    attempt: Attempt
    tail: EventTail
    end: Event | None = None
    """Event `end` of the stage's last process, or None if that process has not recorded the event."""
    beat: float = 0.0
    """Last known modification time of the heartbeat file in seconds since 1970, or 0 if there was no file."""
    seen_at: float = 0.0
    """Time on the monotonic clock at which `beat` last changed, or at which training began if that was later."""
    hangs: bool = False
    stops: int = 0
    """Number of times that the attempt has been asked to stop."""

    def watch_heartbeat(self, hang_minutes: float) -> None:
        """Ask the attempt to stop if its heartbeat file has not changed for `hang_minutes` minutes of training, and
        kill it if it does not end in time. If `hang_minutes` is 0, never stop it."""
        file, now = self.stage.path / HEARTBEAT, time.monotonic()
        beat = file.stat().st_mtime if file.exists() else 0.0
        expected = self.attempt.phase == "training" and self.attempt.is_running()
        if beat != self.beat or not expected:
            self.beat, self.seen_at = beat, now
        silent, patience = now - self.seen_at, 60 * hang_minutes
        if patience and silent > patience and not self.hangs:
            self.hangs = True
            self.attempt.stop()
        elif self.hangs and silent > patience + min(PATIENCE_SECONDS, patience):
            self.attempt.stop()


@dataclass
class _Trouble:
    """Failures of a stage in this run, and their consequences for the next attempt."""

    deaths: int = 0
    not_before: float = 0.0
    micro_batch: int | None = None
    """Number of sequences per micro-batch, which is reduced if the stage runs out of memory, or None for the
    micro-batch of the spec."""


class Orchestrator:
    """An orchestrator that runs stages to completion. `stop` may be called at any time, even from a signal handler.

    Args:
        allowance: remaining budget, or None for no limit.
        claims: leases that must be taken before stages are started, or None if no other machine trains these stages.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        launcher: LauncherPart,
        view: View,
        allowance: Allowance | None = None,
        claims: Claims | None = None,
    ) -> None:
        self._allowance, self._claims = allowance or Allowance(Budget()), claims
        self._pending = [stage for stage in stages if not is_done(stage)]
        self._settings, self._launcher, self._view = launcher, launcher_of(launcher), view
        self._running: list[_Running] = []
        self._troubles: defaultdict[str, _Trouble] = defaultdict(_Trouble)
        self._stops = 0
        self.spent = False
        """True if the run has ended because of its budget."""

    def stop(self) -> str:
        """Start no more stages, and return a message about the running ones. At the next poll, `run` asks stages on
        this machine to save a checkpoint and end. After a second call of `stop`, `run` ends these stages immediately.
        Jobs on a cluster continue."""
        self._stops += 1
        return self._launcher.describe_stop([running.attempt for running in self._running])

    def run(self) -> bool:
        """Run all stages. Return False if `stop` was called or the budget was spent before all stages were done.

        Raises:
            StageFailed: a stage has failed, and the other stages on this machine have stopped with a checkpoint.
        """
        self._allowance.start_clock()
        try:
            while not self._is_over():
                self._start_ready()
                time.sleep(self._launcher.poll_seconds)
                self._watch()
                self._view.tick()
        finally:
            self._leave()
        return not self._pending

    def _is_over(self) -> bool:
        if not self._stops and self._is_spent():
            self.spent = True
            self._stops += 1
        if self._stops:
            return self._launcher.is_detached or not self._running
        return not self._running and not self._pending

    def _is_spent(self) -> bool:
        """Return True if the budget ends the run before all stages are done. Either the time of the budget is over, or
        no stage is running and the remaining compute covers no step of any stage that could start."""
        if self._allowance.out_of_time:
            return bool(self._pending)
        startable = self._startable()
        return not self._running and bool(startable) and not any(map(self._allowance.allows, startable))

    def _start_ready(self) -> None:
        if self._stops:
            return
        ready: list[Stage] = []
        now = time.monotonic()
        for stage in self._startable():
            if len(self._running) + len(ready) >= self._launcher.max_parallel:
                break
            if now < self._troubles[stage.key].not_before:
                continue
            if is_done(stage):  # another tfscale process has finished the stage in the meantime
                self._finish(stage)
                continue
            attempt = self._launcher.follow(stage)
            if attempt is not None:
                self._watch_from_now(stage, attempt, _tail(stage))
                continue
            holder = held(stage.path) or (self._claims.claim(stage) if self._claims else None)
            if holder is not None:
                self._view.waiting(stage, holder)
                continue
            if not is_done(stage) and self._allowance.reserve(stage):
                ready.append(stage)
        if ready:
            self._start(ready)

    def _startable(self) -> list[Stage]:
        unfinished = {stage.key for stage in self._pending}
        busy = {running.stage.key for running in self._running}
        return [stage for stage in self._pending if stage.key not in busy and stage.spec.parent not in unfinished]

    def _start(self, stages: Sequence[Stage]) -> None:
        for stage in stages:
            prepare_folder(stage, self._troubles[stage.key].micro_batch)
        tails = [_tail(stage) for stage in stages]
        limits = {stage.key: step for stage in stages if (step := self._allowance.stop_at(stage)) is not None}
        try:
            attempts = self._launcher.start(stages, limits)
        except LaunchFailed as failure:
            for stage in stages:
                self._allowance.release(stage)
                self._count_death(stage, str(failure))
            return
        for stage, attempt, tail in zip(stages, attempts, tails, strict=True):
            self._watch_from_now(stage, attempt, tail)

    def _watch_from_now(self, stage: Stage, attempt: Attempt, tail: EventTail) -> None:
        self._running.append(_Running(stage, attempt, tail, seen_at=time.monotonic()))
        if attempt.job is None:
            self._view.started(stage, attempt.phase)
        else:
            self._view.queued(stage, attempt.job)

    def _watch(self) -> None:
        for running in list(self._running):
            while running.stops < self._stops and not self._launcher.is_detached:
                running.stops += 1
                running.attempt.stop()
            ending = running.attempt.poll()
            for event in running.tail.new():
                if event["event"] in ("start", "end"):
                    running.end = event if event["event"] == "end" else None
                self._allowance.note(running.stage, event)
                self._view.event(running.stage, event)
            if ending is None:
                running.watch_heartbeat(self._settings.hang_minutes)
                continue
            self._running.remove(running)
            self._allowance.release(running.stage)
            self._handle_ending(running, ending)

    def _handle_ending(self, running: _Running, ending: Ending) -> None:
        """Handle the end of an attempt: mark the stage as finished, leave the stage pending, or schedule another
        attempt. Raise StageFailed if another attempt would not help or no retries are left."""
        stage, attempt = running.stage, running.attempt
        if is_done(stage):
            self._finish(stage)
            return
        if ending.kind == "finished" or self._stops:
            return
        reason = running.end["reason"] if running.end else ""
        failure = _failure(running, ending)
        if not running.hangs:
            if ending.kind == "refused" or reason == "failed":
                raise StageFailed(failure)
            # torchrun has a single exit code and a job has none, so the events of the stage decide.
            if ending.kind == "stopped" or reason == "preempted" or held(stage.path):
                return
        if attempt.phase == "growing":
            raise StageFailed(failure)
        if reason == "out_of_memory":
            self._halve_micro_batch(stage, failure)
        self._count_death(stage, failure)

    def _halve_micro_batch(self, stage: Stage, failure: str) -> None:
        if stage.spec.run.update == "in_backward":
            raise StageFailed(
                f"{failure}\nThe stage ran out of memory with launcher.update=in_backward, which processes the whole "
                "batch at once; try a smaller optim.batch_tokens, or launcher.update=whole."
            )
        start = last_event(read_events(stage.path), "start")
        held_at_once = int(start["micro_batch"]) if start else stage.spec.sequences
        if held_at_once == 1:
            advice = "The stage ran out of memory with one sequence at a time. Use a device with more memory."
            raise StageFailed(f"{failure}\n{advice}")
        self._troubles[stage.key].micro_batch = -(-held_at_once // 2)

    def _count_death(self, stage: Stage, failure: str) -> None:
        trouble = self._troubles[stage.key]
        trouble.deaths += 1
        if trouble.deaths > self._settings.retries:
            raise StageFailed(failure)
        wait = BACK_OFF_SECONDS * 2 ** (trouble.deaths - 1)
        trouble.not_before = time.monotonic() + wait
        smaller = f" with {trouble.micro_batch} sequences at a time" if trouble.micro_batch else ""
        self._view.retrying(stage, f"{failure}\nRetrying in {wait:.0f} s from the last checkpoint{smaller}.")

    def _finish(self, stage: Stage) -> None:
        self._pending.remove(stage)
        self._view.finished(stage)

    def _leave(self) -> None:
        """Stop the running attempts, except those that outlive this process, and wait until they end."""
        if not self._launcher.is_detached:
            for running in self._running:
                running.attempt.stop()
            while None in [running.attempt.poll() for running in self._running]:
                time.sleep(self._launcher.poll_seconds)
        self._running.clear()


def _tail(stage: Stage) -> EventTail:
    tail = EventTail(stage.path)
    tail.new()  # only the events from now on are of interest
    return tail


def prepare_folder(stage: Stage, micro_batch: int | None = None) -> None:
    """Write the spec of a stage to its folder. `micro_batch`, unless it is None, replaces the micro-batch of the
    spec."""
    spec = stage.spec
    if micro_batch is not None:
        spec = replace(spec, run=replace(spec.run, micro_batch=micro_batch))
    write_spec(stage.path, spec)


def _failure(running: _Running, ending: Ending) -> str:
    log = running.attempt.log
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
    how = "no heartbeat" if running.hangs else ending.how
    end = "\n".join(f"  {line}" for line in lines) or "  (the log is empty)"
    return f"{running.stage.path.name} failed while {running.attempt.phase} ({how}). The end of {log}:\n{end}"
