"""What surrounds the training of a chain: the command's start, a stage's start, and the wall time of a whole chain less
the training inside it."""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from subprocess import DEVNULL
from time import perf_counter, sleep, time

import hydra  # noqa: F401  without it there is no chain

from tfscale import children
from tfscale.bench.rows import Found, Row, Rows, Verdict
from tfscale.bench.settings import Settings, alternate
from tfscale.config.compose import compose
from tfscale.schedule.launchers.processes import training_command
from tfscale.schedule.ledger import read_done
from tfscale.schedule.orchestrator import prepare_folder
from tfscale.schedule.plan import make_plan
from tfscale.training.events import read_events

PART = "orchestration"
START, STAGES, CHAIN = "start", "a stage", "progressive_tiny"
HELP = "tfscale --help"
SHORT = ["schedule.stages.stage1.tokens=4096", "schedule.growth_tokens=1024", "data.heldout_tokens=1024"]


def measure(settings: Settings) -> Iterator[Found]:
    """Starts, then the chain."""
    rounds = 2 if settings.quick else 7
    if settings.wants(START):
        commands = {
            "python": [sys.executable, "-c", "pass"],
            HELP: _tfscale("--help"),
            "python, import torch": [sys.executable, "-c", "import torch"],
        }
        times = alternate({each: _runner(command) for each, command in commands.items()}, 0.0, rounds, settings)
        for each, seconds in times.items():
            yield Row(PART, START, each, seconds)
    if settings.wants(STAGES) or settings.wants(CHAIN):
        with tempfile.TemporaryDirectory(prefix="tfscale-bench-") as name:
            overrides = [f"runs={name}/runs", *(SHORT if settings.quick else [])]
            started = perf_counter()
            _runner(_tfscale("data", "prepare", *overrides))()
            yield Row(PART, STAGES, "corpus prepared", (perf_counter() - started,))
            yield Row(PART, STAGES, "launch to first step", tuple(_stage_start(overrides) for _ in range(rounds)))
            if settings.wants(CHAIN):
                yield _chain(overrides)


def _tfscale(*arguments: str) -> list[str]:
    return children.python("tfscale.cli", *arguments)


def _runner(command: Sequence[str]) -> Callable[[], object]:
    return lambda: children.run(command, check=True, stdout=DEVNULL, stderr=None)


def _stage_start(overrides: Sequence[str]) -> float:
    """Seconds from the launch of a process to the moment when its stage's first step begins."""
    stage = make_plan(compose(overrides)).chain.stages[0]
    prepare_folder(stage)
    launched = time()
    process = children.start(training_command(stage.path), stderr=DEVNULL)
    started = None
    while started is None and process.poll() is None:
        sleep(0.005)
        started = next((event["time"] for event in read_events(stage.path) if event["event"] == "start"), None)
    assert started is not None, f"{stage.path}: did not start"
    process.kill()
    process.communicate()
    shutil.rmtree(stage.path)
    return float(started) - launched


def _chain(overrides: Sequence[str]) -> Row:
    started = perf_counter()
    _runner(_tfscale("run", *overrides))()
    wall = perf_counter() - started
    stages = make_plan(compose(overrides)).chain.stages
    training = read_done(stages[-1].path)["totals"]["seconds"]
    growths = [json.loads(path.read_text()) for stage in stages if (path := stage.path / "growth.json").exists()]
    figures = {"training_seconds": training, "growth_seconds": sum(growth["seconds"] for growth in growths)}
    return Row(PART, CHAIN, "chain", (wall,), {**figures, "training_share": training / wall})


def verdicts(rows: Rows, settings: Settings) -> Iterator[Verdict]:
    """The command's start, and training's share of the chain."""
    if row := rows.get(PART, START, HELP):
        yield Verdict(PART, f"{HELP}: seconds", row.median, 0.3, False)
    if row := rows.get(PART, CHAIN, "chain"):
        yield Verdict(PART, f"{CHAIN}: training's share of the wall time", row.figures["training_share"], 0.9, True)
