"""What is around a training step: the loop's own calls, events, the MLflow mirror, and checkpoints.

On the CPU of a model whose step takes about 100 ms there; on CUDA of 124M parameters, whose step takes about as long.
"""

import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter, time

from tfscale.bench.contestants import OPTIMIZER, OURS, Contestant, contestant
from tfscale.bench.rows import Found, Note, Row, Rows, Verdict
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import ON_CUDA, PROGRESSIVE_1, TINY_4, Size
from tfscale.checkpoint import Counters
from tfscale.models.language_model import LanguageModel
from tfscale.schedule.arms import Arm, ArmStage
from tfscale.tracking.store import store_at
from tfscale.tracking.sync import Session
from tfscale.training.events import EventLog
from tfscale.training.optimizer import moments
from tfscale.training.saver import Saver
from tfscale.training.spec import DataSpec, RunSpec, ScheduleSpec, StageSpec
from tfscale.training.watch import Heartbeat
from tfscale.training.world import World

PART, CASE = "overhead", "a step"
CALLS, EVENT, MIRROR, CHECKPOINT = "the loop's calls", "an event", "an event mirrored to MLflow", "a checkpoint"
STEP = 0.1
"""Seconds of the step that the overhead is a share of."""
STEPS_AN_EVENT = 8
"""An event is written a hundred times a stage; progressive_tiny's stages of 780 steps are the shortest shipped."""
EVENTS_A_SYNC = 6
"""The mirror syncs every 5 seconds: so many events of such steps."""


def measure(settings: Settings) -> Iterator[Found]:
    """Everything around a step, apart."""
    rounds = 20 if settings.quick else 500
    size = PROGRESSIVE_1 if settings.quick else ON_CUDA[0] if settings.device == "cuda" else TINY_4
    with tempfile.TemporaryDirectory(prefix="tfscale-bench-") as name:
        folder, spec = Path(name), _spec(size)
        folder.joinpath("stage.yaml").write_text("{}", encoding="utf-8")
        log, world, alive = EventLog(folder), World(), Heartbeat(folder)
        saver = Saver(folder, spec, log, world, beside_training=settings.device == "cuda")

        def calls() -> None:
            alive()
            world.any(False, saver.due(1, by_tokens=False))

        steps = count(1)
        yield Row(PART, CASE, CALLS, _times(calls, rounds))
        yield Row(PART, CASE, EVENT, _times(lambda: _event(log, next(steps)), rounds))
        yield from _mirror(folder, spec, log, 3 if settings.quick else 20)
        yield _checkpoint(saver, contestant(OURS, size, settings), 2 if settings.quick else 5)


def _times(run: Callable[[], object], rounds: int) -> tuple[float, ...]:
    found = []
    for _ in range(rounds):
        started = perf_counter()
        run()
        found.append(perf_counter() - started)
    return tuple(found)


def _event(log: EventLog, step: int) -> None:
    totals = {"total_tokens": step, "total_flops": 10**9 * step, "total_seconds": 0.1, "total_device_seconds": 0.1}
    measured = {"loss": 3.0, "lr": 1e-3, "grad_norm": 1.0, "spike": 0.1, "tokens_per_second": 1e4}
    log.write("train", step=step, tokens=step, time=time(), **totals, **measured)


def _mirror(folder: Path, spec: StageSpec, log: EventLog, rounds: int) -> Iterator[Found]:
    stage = ArmStage("size", "key", folder, spec)
    try:
        session = Session(store_at(folder), "bench")
        session.sync([Arm("arm", "Arm", "chain", (stage,))])
    except ImportError as error:
        yield Note(PART, f"the mirror was left out: {error.name} is not installed")
        return
    times, steps = [], count(10**6)
    for _ in range(rounds):
        for _ in range(EVENTS_A_SYNC):
            _event(log, next(steps))
        started = perf_counter()
        session.sync([Arm("arm", "Arm", "chain", (stage,))])
        times.append((perf_counter() - started) / EVENTS_A_SYNC)
    yield Row(PART, CASE, MIRROR, tuple(times))


def _checkpoint(saver: Saver, made: Contestant, rounds: int) -> Row:
    assert isinstance(made.model, LanguageModel)
    made.step()
    weights = {f"model/{name}": weight.detach() for name, weight in made.model.named_parameters()}
    tensors = weights | moments(made.model, made.optimizer)
    stalls = []
    for step in range(1, rounds + 1):
        started = perf_counter()
        saver.save(Counters(step=step), tensors)
        stalls.append(perf_counter() - started)
        saver.wait()  # a stage has minutes for that
    return Row(PART, CASE, CHECKPOINT, tuple(stalls), {"bytes": sum(each.nbytes for each in tensors.values())})


def _spec(size: Size) -> StageSpec:
    return StageSpec(
        label="bench",
        model=size.tokenformer,
        data=DataSpec("bench", 0, 0, size.time),
        tokens=10**6 * size.tokens,
        batch_tokens=size.tokens,
        optimizer=OPTIMIZER,
        schedule=ScheduleSpec("constant", 0, 0.0, 1.0, 0.0),
        seed=0,
        run=RunSpec("data"),
    )


def verdicts(rows: Rows, settings: Settings) -> Iterator[Verdict]:
    """All of it, as a share of a step: an event every few steps, a checkpoint as often as the settings say."""
    found = {name: rows.get(PART, CASE, name) for name in (CALLS, EVENT, MIRROR, CHECKPOINT)}
    if any(row is None for row in found.values()):
        return
    calls, event, mirror, stall = (median(row.seconds) for row in found.values() if row is not None)
    share = (calls + (event + mirror) / STEPS_AN_EVENT) / STEP + stall / (60 * RunSpec("").checkpoint_minutes)
    yield Verdict(PART, f"share of a step of {1e3 * STEP:.0f} ms", share, 0.02, False)
