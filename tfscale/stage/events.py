"""metrics.jsonl: the append-only record of the training of a stage, with a writer and readers.

Each line is one event:

    {"event": "compiled", "seconds": ...}
                                     a process has compiled its training step, before the first step is timed
    {"event": "start", "step": 0, "host": ..., "pid": ..., "device": ..., "processes": ..., "sharding": ...,
     "recompute": ..., "micro_batch": ..., "evaluation_batch": ..., "micro_batch_by": ..., "lanes": ...}
                                     training begins, resumes or continues after a rollback at this step; `pid` is
                                     the process id of the leading rank, and the fields from `sharding` on are the
                                     layout (`tfscale.stage.layout`)
    {"event": "train", "step": ..., "tokens": ..., + totals, "loss": ..., "lr": ..., "grad_norm": ..., "spike": ...,
     "tokens_per_second": ..., "peak_memory": ...}
                                     `peak_memory` is the peak memory of the leading rank in bytes. On CUDA, this
                                     is the memory allocated for tensors; on a CPU, it is the resident set size
    {"event": "eval", "step": ..., "tokens": ..., + totals, "loss": ..., "perplexity": ..., "bits_per_byte": ...,
     "heldout_tokens": ..., "heldout_bytes": ...}
    {"event": "ending", "step": ..., "ends_at": ...}
                                     a rule or a trial has decided at this step that the stage ends after `ends_at`
                                     tokens
    {"event": "non_finite", "step": ..., "loss": ..., "grad_norm": ..., "where": [...], "policy": ..., "count": ...}
    {"event": "broken_checkpoint", "step": ..., "message": ...}
    {"event": "checkpoint", "step": ..., "name": ..., "bytes": ..., "seconds": ...}
    {"event": "end", "step": ..., "reason": "done" | "preempted"}
    {"event": "end", "reason": "failed" | "out_of_memory", "message": ...}

Every event also has a `time` in seconds since 1970. `step` and `tokens` are counted from the beginning of the stage.
The totals are the fields of `tfscale.totals.Totals` with the prefix `total_`; unknown totals are missing. Losses are in
nats per token.

If there are several ranks, the leading rank writes the events. It writes the `end` event before any rank exits,
regardless of which rank has failed. There is no `end` event if a process is killed or stops because of an error in
tfscale, or if a single process finds an invalid setting.

Existing lines are never changed. A process that resumes from an older checkpoint writes a `start` event, and
`read_events` drops the earlier measurements of the steps that are then repeated.
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from tfscale.totals import Totals

METRICS_FILE = "metrics.jsonl"
HEARTBEAT = "heartbeat"
"""Name of the heartbeat file, whose modification time a running stage updates."""

Event = dict[str, Any]


class EventLog:
    """Append-only log of events in metrics.jsonl. On ranks other than the leading rank, `stage_dir` is None and nothing
    is written."""

    def __init__(self, stage_dir: Path | None) -> None:
        self._file: TextIO | None = None
        if stage_dir is not None:
            _end_torn_line(stage_dir / METRICS_FILE)
            self._file = (stage_dir / METRICS_FILE).open("a", encoding="utf-8")

    def write(self, event: str, **values: Any) -> None:
        """Write an event with the given values and, unless `values` contains a time, the current time. Other processes
        can read the event as a complete line when this method returns."""
        if self._file is not None:
            values.setdefault("time", time.time())
            self._file.write(json.dumps({"event": event, **values}) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Write all events to disk, so that the events survive a power failure."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write all events to disk and close the file."""
        if self._file is not None:
            self.sync()
            self._file.close()


def _end_torn_line(path: Path) -> None:
    # A process that is killed during a write leaves an incomplete line, which is ended here and which readers skip.
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def read_events(stage_dir: Path) -> list[Event]:
    """Return the events of a stage in order, without the earlier measurements of steps that were repeated."""
    return fold(parse(read_lines(stage_dir / METRICS_FILE)))


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, with invalid UTF-8 bytes replaced, or an empty list if there is no file."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def last_event(events: Sequence[Event], *names: str) -> Event | None:
    """Return the last event whose name is one of `names`, or None if there is no such event."""
    return next((event for event in reversed(events) if event["event"] in names), None)


def totals_of(event: Event) -> Totals:
    """Return the totals of a `train` or `eval` event.

    Raises:
        KeyError: a total other than the energy and the optimizer's FLOPs is missing.
    """
    return Totals(
        event["total_tokens"],
        event["total_flops"],
        event["total_seconds"],
        event["total_device_seconds"],
        event.get("total_joules"),
        event.get("total_optimizer_flops"),
    )


class EventTail:
    """Reader that follows the events of a stage while they are written."""

    def __init__(self, stage_dir: Path) -> None:
        self._path = stage_dir / METRICS_FILE
        self._offset = 0

    def new(self) -> list[Event]:
        """Return the events that have been written completely since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return parse(whole.decode("utf-8", errors="replace").splitlines())


def parse(lines: Iterable[str]) -> list[Event]:
    """Return the events in `lines`. Lines that are not valid events, such as incomplete lines, are skipped."""
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # truncated when the process was killed; the event was written again after the resume
        if isinstance(event, dict) and "event" in event:
            events.append(event)
    return events


def fold(events: Iterable[Event]) -> list[Event]:
    """Return `events` without the earlier `train` and `eval` events of steps that were repeated after a resume or a
    rollback."""
    kept: list[Event] = []
    for event in events:
        if event["event"] == "start":
            kept = [old for old in kept if old["event"] not in ("train", "eval") or old["step"] <= event["step"]]
        kept.append(event)
    return kept
