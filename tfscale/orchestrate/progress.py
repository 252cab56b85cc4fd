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
"""Number of training events over which the speed is averaged."""


class Sample(NamedTuple):
    """A training loss, and the cumulative compute at which it was measured."""

    flops: float
    """Model FLOPs of the lineage, including parents."""
    loss: float
    """Training loss in nats per token."""


@dataclass(frozen=True)
class Progress:
    """The state, losses, speed and memory of a stage."""

    stage: Stage
    status: StageStatus
    new: tuple[Event, ...] = ()
    """Events since the previous call of `Watch.look`."""
    losses: tuple[Sample, ...] = ()
    """Losses of training batches with the cumulative compute, in the order of training."""
    tokens_per_second: float | None = None
    mfu: float | None = None
    """Model FLOPs utilisation, or None if conf/device does not list the device or no speed is known yet."""
    memory: int | None = None
    """Peak memory in bytes of a device or, on a CPU, of the process. For a process that is running on a CPU of this
    host, the current memory in bytes. None if it is unknown."""

    @property
    def phase(self) -> str:
        """Phase of a running stage, or the state of a stage that is not running."""
        if self.status.state != "running" or self.losses:
            return self.status.state
        return "growing" if self.stage.spec.inherits and not is_grown(self.stage.path) else "starting"

    @property
    def flops_per_token(self) -> int:
        """Model FLOPs of training per token."""
        return flops(self.stage.spec.model).training

    @property
    def work(self) -> int:
        """Model FLOPs of the whole stage."""
        return self.stage.spec.tokens * self.flops_per_token

    @property
    def worked(self) -> int:
        """Model FLOPs that the stage has spent."""
        return self.status.tokens * self.flops_per_token


class Watch:
    """A reader that follows the progress of stages. Each event is read from the stages' folders only once."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._followed = {stage.key: _Followed(stage) for stage in stages}

    def look(self) -> dict[str, Progress]:
        """Return the progress of each stage, by the key of the stage."""
        return {key: followed.look() for key, followed in self._followed.items()}


class _Followed:
    """A reader of one stage, which keeps the events that it has already read."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._tail = stage, EventTail(stage.path)
        self._events: list[Event] = []

    def look(self) -> Progress:
        new = self._tail.new()
        if new:
            self._events = fold([*self._events, *new])
        status = status_from(self._stage, self._events)
        trained = [event for event in self._events if event["event"] == "train"]
        speed = _tokens_per_second(trained)
        return Progress(
            self._stage,
            status,
            tuple(new),
            tuple(Sample(event["total_flops"], event["loss"]) for event in trained),
            speed,
            self._mfu(speed),
            self._memory(running=status.state == "running"),
        )

    def _mfu(self, tokens_per_second: float | None) -> float | None:
        start = last_event(self._events, "start")
        if tokens_per_second is None or start is None:
            return None
        try:
            environment = read_environment(self._stage.path)
        except ValueError:
            return None
        work = tokens_per_second * flops(self._stage.spec.model).training
        return mfu(environment.device, environment.precision, work, start.get("processes", 1))

    def _memory(self, running: bool) -> int | None:
        if running:
            start = last_event(self._events, "start") or {}
            if start.get("device") == "cpu" and start.get("host") == socket.gethostname():
                with contextlib.suppress(psutil.Error):  # the process may have just ended
                    return int(psutil.Process(start["pid"]).memory_info().rss)
            return (last_event(self._events, "train") or {}).get("peak_memory")
        try:
            return read_result(self._stage.path).peak_memory
        except ValueError:
            return None


def _tokens_per_second(trained: Sequence[Event]) -> float | None:
    last = trained[-WINDOW:]
    if not last:
        return None
    seconds = last[-1]["total_seconds"] - last[0]["total_seconds"]
    if seconds > 0:
        return float((last[-1]["tokens"] - last[0]["tokens"]) / seconds)
    one: float | None = last[-1]["tokens_per_second"]
    return one


def seconds_left(looks: Sequence[Progress], known: Sequence[Speed], parallel: int = 1) -> float | None:
    """Return the seconds until the stages are done if `parallel` of them run at the same time. A stage without a
    measured speed is assumed to be as fast as the running or finished stage of the same family with the most similar
    size. Return None if there is no such stage.

    Args:
        looks: progress of the stages, parents before children.
        known: speeds of finished stages.
    """
    speeds = [(speed.family, speed.parameters, speed.flops_per_second) for speed in known]
    speeds += [
        (look.stage.spec.model.family, parameters(look.stage.spec.model), look.tokens_per_second * look.flops_per_token)
        for look in looks
        if look.tokens_per_second
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
    own = look.tokens_per_second * look.flops_per_token if look.tokens_per_second else None
    rate = own or (min(like)[1] if like else None)
    return (look.work - look.worked) / rate if rate else None


@dataclass(frozen=True)
class Overview:
    """The compute used and the time left of a whole plan."""

    worked: float
    """Model FLOPs that have been spent."""
    work: float
    """Model FLOPs of all stages."""
    chain_left: float | None
    """Seconds until the chain is done, or None if no speed is known yet."""
    left: float | None
    """Seconds until all arms are done, or None if no speed is known yet."""

    @property
    def share(self) -> float:
        """Fraction of the compute that has been spent."""
        return self.worked / self.work if self.work else 1.0


def overview(plan: Plan, looks: Mapping[str, Progress], known: Sequence[Speed]) -> Overview:
    """Return the compute used and the time left of a whole plan.

    Args:
        looks: progress of all stages of the plan, by key.
        known: speeds of finished stages.
    """
    parallel = plan.experiment.launcher.parallel
    return Overview(
        sum(look.worked for look in looks.values()),
        sum(look.work for look in looks.values()),
        seconds_left([looks[stage.key] for stage in plan.arms[0].all_stages], known, parallel),
        seconds_left(list(looks.values()), known, parallel),
    )
