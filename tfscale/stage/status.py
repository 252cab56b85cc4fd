"""Status of a stage, determined from the files in its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tfscale.stage.events import Event, last_event, read_events
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.lock import held

State = Literal["done", "running", "preempted", "failed", "interrupted", "waiting"]
"""State of a stage. `preempted`: stopped on request, with a checkpoint. `interrupted`: ended without an `end` event,
for example because the process was killed."""


@dataclass(frozen=True)
class StageStatus:
    """State and progress of a stage."""

    state: State
    tokens: int = 0
    detail: str = ""
    """Description of the process that works on the stage, the message of a failure, or an empty string."""
    last_eval: Event | None = None


def status_of(stage: Stage) -> StageStatus:
    """Return the status of a stage, as determined from the files in its folder."""
    return status_from(stage, read_events(stage.path))


def status_from(stage: Stage, events: Sequence[Event]) -> StageStatus:
    """Return the status of a stage, given its events (`read_events`)."""
    tokens = max((event["tokens"] for event in events if "tokens" in event), default=0)
    evaluation = last_event(events, "eval")
    if is_done(stage):
        return StageStatus("done", stage.spec.tokens, last_eval=evaluation)
    holder = held(stage.path)
    if holder is not None:
        return StageStatus("running", tokens, holder, evaluation)
    end = last_event(events, "end", "start")
    if end is None:
        return StageStatus("waiting")
    if end["event"] == "start":
        return StageStatus("interrupted", tokens, last_eval=evaluation)
    state: State = "preempted" if end.get("reason") == "preempted" else "failed"
    return StageStatus(state, tokens, end.get("message", ""), evaluation)
