"""Benchmark of the work besides the training step: events, the MLflow mirror, and checkpoints.

The reference is a training step of 100 ms, which is typical of the small chain on a CPU and of 124M parameters on CUDA.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from time import time

from tfscale.bench.rows import Found, Note, Row
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import ON_CUDA, PROGRESSIVE_1, TINY_4, Size
from tfscale.bench.trained import OURS
from tfscale.checkpoint import Counters
from tfscale.doctor.stages import stage
from tfscale.plan.arms import Arm
from tfscale.stage.events import EventLog
from tfscale.stage.folder import Stage
from tfscale.stage.spec import RunSpec, StageSpec, write_spec
from tfscale.tracking.mlflow.tracker import MlflowTracker
from tfscale.tracking.sync import Session
from tfscale.training.optimizer import ModelOptimizer
from tfscale.training.saver import Saver
from tfscale.training.world import World

PART, CASE = "overhead", "a step"
STEP_SECONDS = 0.1
STEPS_PER_EVENT = 8
"""Number of training steps per training event. A stage writes a hundred events, and the shortest stages, those of
progressive_tiny, have 780 steps."""
EVENTS_PER_SYNC = 6
"""Number of events per sync of the mirror, which happens every 5 seconds."""


def measure(settings: Settings) -> Iterator[Found]:
    """Measure each kind of work, and the sum as a share of a step."""
    size = PROGRESSIVE_1 if settings.quick else ON_CUDA[0] if settings.on_cuda else TINY_4
    with tempfile.TemporaryDirectory(prefix="tfscale-bench-") as name:
        folder = Path(name) / "stage"
        spec = stage(size.tokenformer, RunSpec(data_dir="data"), steps=10**6, sequences=size.sequences, lr=1e-4)
        write_spec(folder, spec)
        log, steps = EventLog(folder), count(1)
        event = Row(PART, CASE, "an event", _times(lambda: _event(log, next(steps)), settings, 500))
        saved = Row(PART, CASE, "a checkpoint", _checkpoints(size, settings, folder, spec, log))
        yield event
        yield saved
        try:
            session = Session(MlflowTracker(Path(name)), "bench")
        except ImportError as error:
            yield Note(PART, f"the mirror was skipped: {error.name} is not installed")
            return
        times = _times(partial(_sync, session, Stage("size", "key", folder, spec), log, steps), settings, 20)
        mirrored = Row(PART, CASE, "events mirrored to MLflow", times, {"events": EVENTS_PER_SYNC})
        yield mirrored
        per_step = (event.median + mirrored.median / EVENTS_PER_SYNC) / STEPS_PER_EVENT
        share = per_step / STEP_SECONDS + saved.median / (60 * spec.run.checkpoint_minutes)
        yield Row(PART, CASE, "together", (), {"share_of_step": share})


def _times(run: Callable[[], object], settings: Settings, rounds: int) -> tuple[float, ...]:
    return tuple(settings.time(run) for _ in range(3 if settings.quick else rounds))


def _event(log: EventLog, step: int) -> None:
    totals = {"total_tokens": step, "total_flops": 10**9 * step, "total_seconds": 0.1, "total_device_seconds": 0.1}
    measured = {"loss": 3.0, "lr": 1e-3, "grad_norm": 1.0, "spike": 0.1, "tokens_per_second": 1e4}
    log.write("train", step=step, tokens=step, time=time(), **totals, **measured)


def _sync(session: Session, stage: Stage, log: EventLog, steps: Iterator[int]) -> None:
    for _ in range(EVENTS_PER_SYNC):
        _event(log, next(steps))
    session.sync([Arm("arm", "Arm", "chain", (stage,))])


def _checkpoints(size: Size, settings: Settings, folder: Path, spec: StageSpec, log: EventLog) -> tuple[float, ...]:
    """Save checkpoints and return the seconds that training waits for each."""
    saver = Saver(folder, spec, log, World(), beside_training=settings.on_cuda)
    trained = OURS.build(size, settings)
    assert isinstance(trained.optimizer, ModelOptimizer)
    trained.step()
    weights = {f"model/{name}": weight.detach() for name, weight in trained.model.named_parameters()}
    tensors, times = weights | trained.optimizer.state(), []
    for step in range(1, 6):
        times.append(settings.time(partial(saver.save, Counters(step=step), tensors)))
        saver.wait()  # in a stage, the next checkpoint follows minutes later
    return tuple(times)
