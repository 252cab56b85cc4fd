"""Benchmark of the time that is not spent on training: the start of the command, and the duration of a chain compared
with the training time of its stages."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from subprocess import DEVNULL
from time import perf_counter

from tfscale import children
from tfscale.bench.contest import take_turns
from tfscale.bench.rows import Found, Row
from tfscale.bench.settings import Settings
from tfscale.config.compose import compose
from tfscale.plan.plan import make_plan
from tfscale.stage.events import Event, read_events
from tfscale.stage.result import read_result

PART, START, CHAIN = "orchestration", "start", "progressive_tiny"
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "tfscale --help": children.python("tfscale.cli", "--help"),
    "python, import torch": [sys.executable, "-c", "import torch"],
}
SHORT = ["schedule.stages.stage1.tokens=4096", "schedule.growth_tokens=1024", "data.validation_tokens=1024"]


def measure(settings: Settings) -> Iterator[Found]:
    """Measure the start of the command, then the chain."""
    if settings.wants(START):
        turns = {name: partial(settings.time, partial(_run, command)) for name, command in COMMANDS.items()}
        for name, seconds in take_turns(turns, 0.0, 2 if settings.quick else 7).items():
            yield Row(PART, START, name, seconds)
    if settings.wants(CHAIN):
        with tempfile.TemporaryDirectory(prefix="tfscale-bench-") as folder:
            yield from _chain([f"runs={folder}/runs", *(SHORT if settings.quick else [])])


def _run(command: Sequence[str]) -> None:
    children.run(command, check=True, stdout=DEVNULL, stderr=None)


def _chain(overrides: Sequence[str]) -> Iterator[Row]:
    started = perf_counter()
    _run(children.python("tfscale.cli", "data", "prepare", *overrides))
    prepared = perf_counter()
    yield Row(PART, CHAIN, "corpus prepared", (prepared - started,))
    _run(children.python("tfscale.cli", "run", *overrides))
    wall = perf_counter() - prepared
    stages = make_plan(compose(overrides)).chain.stages
    training = read_result(stages[-1].path).totals.seconds
    yield Row(PART, CHAIN, "chain", (wall,), {"training_seconds": training, "training_share": training / wall})
    events = [list(read_events(stage.path)) for stage in stages]
    gaps = [_time(after, "start") - _time(before, "end") for before, after in pairwise(events)]
    yield Row(PART, CHAIN, "from a stage's end to the next one's start", tuple(gaps))


def _time(events: Sequence[Event], kind: str) -> float:
    return next(float(event["time"]) for event in events if event["event"] == kind)
