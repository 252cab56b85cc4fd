"""Progress, speed and remaining time of a plan's stages, read from their folders for `run` and `status --watch`."""

import contextlib
import math
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import psutil

from tfscale.models.counts import flops, parameters
from tfscale.orchestrate.speed import Speed
from tfscale.plan.devices import mfu
from tfscale.plan.plan import Plan
from tfscale.stage.environment import read_environment
from tfscale.stage.events import Event, EventTail, fold, last_event
from tfscale.stage.folder import Stage
from tfscale.stage.growth_record import is_grown
from tfscale.stage.result import read_result
from tfscale.stage.status import StageStatus, status_from

WINDOW = 5
"""Number of `train` events over which the speed is averaged."""


class Sample(NamedTuple):
    """A training loss in nats per token, and the model FLOPs that the stage and its ancestors had used when the loss
    was measured."""

    flops: float
    loss: float


@dataclass(frozen=True)
class Progress:
    """The state, losses, speed and memory of a stage."""

    stage: Stage
    status: StageStatus
    new: tuple[Event, ...] = ()
    """Events since the previous call of `Watch.look`."""
    losses: tuple[Sample, ...] = ()
    tokens_per_second: float | None = None
    mfu: float | None = None
    """Model FLOPs utilisation, or None if conf/device lists no peak for the device and precision, or no step has been
    timed."""
    memory: int | None = None
    """Memory in bytes, or None if it is unknown. For a stage that is running on a CPU of this host, this is the current
    resident memory of the process. For all other stages, it is the peak memory of the leading rank."""

    @property
    def phase(self) -> str:
        """State of the stage. A running stage without a training loss is `growing` until the weights that it inherits
        are in its first checkpoint, and `starting` after that or if it inherits no weights."""
        if self.status.state != "running" or self.losses:
            return self.status.state
        return "growing" if self.stage.spec.inherits and not is_grown(self.stage.path) else "starting"

    @property
    def flops_per_second(self) -> float | None:
        """Training speed in model FLOP/s, or None if no step has been timed."""
        return self.tokens_per_second * flops(self.stage.spec.model).training if self.tokens_per_second else None

    @property
    def work(self) -> int:
        """Model FLOPs of the whole stage."""
        return self.stage.spec.tokens * flops(self.stage.spec.model).training

    @property
    def worked(self) -> int:
        """Model FLOPs that the stage has spent."""
        return self.status.tokens * flops(self.stage.spec.model).training


class Watch:
    """A reader that follows the progress of stages. Each event is read from the stages' folders only once."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = {stage.key: stage for stage in stages}
        self._tails = {key: EventTail(stage.path) for key, stage in self._stages.items()}
        self._events: dict[str, list[Event]] = {key: [] for key in self._stages}

    def look(self) -> dict[str, Progress]:
        """Return the current progress of each stage, by stage key."""
        return {key: self._look(stage) for key, stage in self._stages.items()}

    def _look(self, stage: Stage) -> Progress:
        new = self._tails[stage.key].new()
        if new:
            self._events[stage.key] = fold([*self._events[stage.key], *new])
        events = self._events[stage.key]
        status = status_from(stage, events)
        trained = [event for event in events if event["event"] == "train"]
        speed = _tokens_per_second(trained)
        return Progress(
            stage,
            status,
            tuple(new),
            tuple(Sample(event["total_flops"], event["loss"]) for event in trained),
            speed,
            _mfu(stage, events, speed),
            _memory(stage, events, running=status.state == "running"),
        )


def _mfu(stage: Stage, events: Sequence[Event], tokens_per_second: float | None) -> float | None:
    start = last_event(events, "start")
    if tokens_per_second is None or start is None:
        return None
    try:
        environment = read_environment(stage.path)
    except ValueError:
        return None
    work = tokens_per_second * flops(stage.spec.model).training
    return mfu(environment.device, environment.precision, work, start.get("processes", 1))


def _memory(stage: Stage, events: Sequence[Event], running: bool) -> int | None:
    if running:
        start = last_event(events, "start") or {}
        if start.get("device") == "cpu" and start.get("host") == socket.gethostname():
            with contextlib.suppress(psutil.Error):  # the process may have just ended
                return int(psutil.Process(start["pid"]).memory_info().rss)
        return (last_event(events, "train") or {}).get("peak_memory")
    try:
        return read_result(stage.path).peak_memory
    except ValueError:
        return None


def _tokens_per_second(trained: Sequence[Event]) -> float | None:
    if not trained:
        return None
    first, last = trained[-WINDOW:][0], trained[-1]
    seconds = last["total_seconds"] - first["total_seconds"]
    of_one_event: float | None = last["tokens_per_second"]
    return float((last["tokens"] - first["tokens"]) / seconds) if seconds > 0 else of_one_event


def seconds_left(looks: Sequence[Progress], known: Sequence[Speed], parallel: int = 1) -> float | None:
    """Return an estimate of the seconds until all stages are done if `parallel` stages run at the same time, or None if
    the speed of a stage cannot be estimated. A stage without a measured speed is assumed to have the same FLOP/s as the
    running or finished stage of its model family with the most similar number of parameters.

    Args:
        looks: progress of the stages, parents before children.
        known: speeds of finished stages.
    """
    speeds = [(speed.family, speed.parameters, speed.flops_per_second) for speed in known]
    speeds += [
        (look.stage.spec.model.family, parameters(look.stage.spec.model), look.flops_per_second)
        for look in looks
        if look.flops_per_second
    ]
    left = {look.stage.key: _stage_seconds(look, speeds) for look in looks}
    ends: dict[str, float] = {}
    for look in looks:  # parents come first
        seconds = left[look.stage.key]
        if seconds is None:
            return None
        ends[look.stage.key] = ends.get(look.stage.spec.parent or "", 0.0) + seconds
    whole = sum(seconds for seconds in left.values() if seconds is not None)
    return max([whole / parallel, *ends.values()])


def _stage_seconds(look: Progress, speeds: Sequence[tuple[str, int, float]]) -> float | None:
    if look.status.state == "done" or look.stage.spec.init_from is not None:
        return 0.0
    family, size = look.stage.spec.model.family, parameters(look.stage.spec.model)
    like = [(abs(math.log(count / size)), rate) for other, count, rate in speeds if other == family]
    rate = look.flops_per_second or (min(like)[1] if like else None)
    return (look.work - look.worked) / rate if rate else None


@dataclass(frozen=True)
class Overview:
    """The compute used and the time left of a whole plan."""

    worked: float
    """Model FLOPs that have been spent."""
    work: float
    """Model FLOPs of all stages."""
    chain_left: float | None
    """Estimated seconds until the chain is done, or None if the speed of a stage cannot be estimated yet."""
    left: float | None
    """Estimated seconds until all arms are done, or None if the speed of a stage cannot be estimated yet."""

    @property
    def share(self) -> float:
        """Fraction of the compute that has been spent."""
        return self.worked / self.work if self.work else 1.0


def overview(plan: Plan, looks: Mapping[str, Progress], known: Sequence[Speed]) -> Overview:
    """Return the compute used and the time left of a whole plan. `looks` contains the progress of all stages of the
    plan by key, and `known` the speeds of finished stages."""
    parallel = plan.experiment.launcher.parallel
    return Overview(
        sum(look.worked for look in looks.values()),
        sum(look.work for look in looks.values()),
        seconds_left([looks[stage.key] for stage in plan.arms[0].all_stages], known, parallel),
        seconds_left(list(looks.values()), known, parallel),
    )
