"""Verification of metrics.jsonl, whose events must be complete and agree with the result in done.json."""

from collections.abc import Iterable
from dataclasses import asdict, astuple
from pathlib import Path

from tfscale.checkpoint import folder_name
from tfscale.stage.events import METRICS_FILE, Event, fold, last_event, parse, read_lines, totals_of
from tfscale.stage.result import DONE_FILE, Result
from tfscale.stage.spec import CHECKPOINTS
from tfscale.totals import Totals
from tfscale.verify.folder import Check, StageFolder, costs_of, words

MOST = 5
"""Maximum number of findings that are reported for a metrics.jsonl, because the same error may affect every line."""
_FIRST_EVENTS = ("compiled", "start", "broken_checkpoint", "end")
"""Names of the events that a new process may write first, and which may therefore follow an incomplete line that a
killed process left."""


def verify_metrics(this: StageFolder) -> Check[None]:
    """Check that every line is an event or was left incomplete by a killed process, and that totals increase by the
    cost of the steps. Check that the last evaluation of a finished stage equals that in done.json, and that the latest
    checkpoint of an unfinished stage exists."""
    file = this.path / METRICS_FILE
    if not file.exists():
        if this.finished:
            yield f"{file}: missing, although the stage is finished"
        return
    for number, finding in enumerate(_events(this, file)):
        if number == MOST:
            yield f"{file}: has further problems; only the first {MOST} are listed"
            return
        yield finding


def _events(this: StageFolder, file: Path) -> Check[None]:
    events = yield from _whole_events(file, this.finished)
    history = fold(events)
    yield from _measurements(this, file, [event for event in history if event["event"] in ("train", "eval")])
    if this.result is not None:
        yield from _last_words(this.result, file, history)
    elif not this.finished and not this.busy:
        yield from _last_saved(this, file, history)


def _whole_events(file: Path, finished: bool) -> Check[list[Event]]:
    """Return the valid events, each with its line number in the field `line`. Yield a finding for each event without a
    required step, and for each incomplete line that no killed process can have left."""
    events: list[Event] = []
    torn: list[int] = []
    for number, line in enumerate(read_lines(file), start=1):
        event = next(iter(parse([line])), None)
        if event is None:
            torn.append(number)
            continue
        if event["event"] not in _FIRST_EVENTS:
            yield from _torn(file, torn)
        torn = []
        if event["event"] in ("start", "train", "eval") and not isinstance(event.get("step"), int):
            yield f"{file}: line {number} has no step, but every event {event['event']} has a step"
            continue
        events.append({**event, "line": number})
    if finished:
        yield from _torn(file, torn)
    return events


def _torn(file: Path, lines: Iterable[int]) -> Check[None]:
    for number in lines:
        yield f"{file}: line {number} is incomplete, but only the last line of a killed process may be incomplete"


def _measurements(this: StageFolder, file: Path, events: Iterable[Event]) -> Check[None]:
    steps = {"train": 0, "eval": -1}
    last = this.before or Totals()
    for event in events:
        kind, step = event["event"], event["step"]
        what = f"{file}: line {event['line']}, {kind} of step {step}"
        totals = totals_of(event)
        if step <= steps[kind]:
            yield f"{what}: comes after step {steps[kind]}, but steps must increase"
        if event["tokens"] != step * this.spec.batch_tokens:
            yield f"{what}: {event['tokens']:,} tokens, but {step} steps make {step * this.spec.batch_tokens:,}"
        if this.before is not None:
            yield from costs_of(what, totals, this.before, this.spec, step, this.bad_steps)
        pairs = zip(astuple(totals), astuple(last), strict=True)
        if any(now < then for now, then in pairs if now is not None and then is not None):
            yield f"{what}: {words(totals)}, less than the previous {words(last)}"
        steps[kind], last = step, totals


def _last_words(end: Result, file: Path, history: list[Event]) -> Check[None]:
    evaluation = last_event(history, "eval") or {}
    totals = {f"total_{name}": value for name, value in asdict(end.totals).items()}
    for name, wanted in {"step": end.step, **totals, **asdict(end.evaluation)}.items():
        if evaluation.get(name) != wanted:
            yield f"{file}: {name} of the last evaluation is {evaluation.get(name)}, but {DONE_FILE} says {wanted}"
    if not history or history[-1].get("reason") != "done":
        yield f"{file}: the last event of a finished stage must be an end event with the reason done"


def _last_saved(this: StageFolder, file: Path, history: list[Event]) -> Check[None]:
    """Check that the last recorded checkpoint, possibly renamed to `broken-*`, or a newer checkpoint exists. A process
    that was killed may have written a newer checkpoint without recording it."""
    last = last_event(history, "checkpoint", "start")
    if last is None or (last["step"] == 0 and this.parent is None):
        return
    name = folder_name(last["step"])
    folders = this.path / CHECKPOINTS
    newer = any(folder.name >= name for folder in folders.glob("step-*"))
    if not newer and not (folders / f"broken-{name}").exists():
        yield f"{folders / name}: missing, but {file} says that it is the latest checkpoint"
