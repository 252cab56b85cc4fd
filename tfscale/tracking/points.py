"""Conversion of a stage's events to values of metrics whose x-axis is either training tokens or compute (model
FLOPs)."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from tfscale.stage.evaluations import MEASURES, measured
from tfscale.stage.events import Event

PERPLEXITY, FINAL_PERPLEXITY = "heldout/perplexity", "final/perplexity"

_PREFIXES = {"train": "train", "eval": "heldout"}
_NO_METRICS = ("event", "step", "tokens", "time", "heldout_tokens", "heldout_bytes", "tokens_per_second", "peak_memory")
_FINAL, _EVALUATED = "final/", "eval/"

Over = Literal["tokens", "flops"]


class Point(NamedTuple):
    """Value of a metric at one position on the x-axis. `over` states whether the x-axis is the number of training
    tokens or the number of model FLOPs."""

    name: str
    over: Over
    at: float
    """Position on the x-axis: the cumulative number of training tokens or model FLOPs, including parent stages."""
    value: float
    time: int
    """Time of the measurement, in milliseconds since 1970."""

    @property
    def is_of_model(self) -> bool:
        """True if the point is a measurement of the model of a finished stage and the x-axis is the number of
        tokens."""
        return self.name.startswith((_FINAL, _EVALUATED)) and self.over == "tokens"


def is_evaluation(name: str) -> bool:
    """Return True if the metric `name` is measured by `tfscale eval`. Such a metric can have several values for one
    model."""
    return name.startswith(_EVALUATED)


def stage_points(events: Iterable[Event]) -> list[Point]:
    """Return the metric values of a stage: first train/*, heldout/*, total/* and system/*, whose x-axis is the number
    of training tokens, and then the validation perplexity, whose x-axis is the number of model FLOPs
    (`curve_points`)."""
    points: dict[tuple[str, float], Point] = {}
    for event in events:
        if event["event"] in _PREFIXES:
            for name, value in _measurements(event):
                point = _point(name, "tokens", value, event)
                points.setdefault((name, point.at), point)  # `eval` and `train` events of a step have the same totals
    return [*points.values(), *_system_points(events), *curve_points(events)]


def curve_points(events: Iterable[Event]) -> list[Point]:
    """Return the validation perplexity of a stage as a function of cumulative model FLOPs, one point per evaluated
    step."""
    evaluations = {event["step"]: event for event in events if event["event"] == "eval"}
    return [_point(PERPLEXITY, "flops", event["perplexity"], event) for event in evaluations.values()]


def end_points(events: Iterable[Event], evaluations: Iterable[dict[str, Any]]) -> Iterator[Point]:
    """Yield the final validation perplexity of a finished stage and the results of `tfscale eval`, except standard
    errors, as metrics whose x-axis is the number of model FLOPs."""
    for event in _last(events):
        yield _point(FINAL_PERPLEXITY, "flops", event["perplexity"], event)
        yield from (point for point in _evaluated("flops", event, evaluations) if not point.name.endswith("_stderr"))


def model_points(events: Iterable[Event], evaluations: Iterable[dict[str, Any]]) -> Iterator[Point]:
    """Yield the final measurements of a finished stage as metrics whose x-axis is the number of training tokens. The
    results of the last validation during training and the total costs, which include the costs of the parent stages,
    are named final/*. The results of `tfscale eval` are named eval/NAME/MEASURE."""
    for event in _last(events):
        for name, value in event.items():
            if (name in MEASURES or name.startswith("total_")) and value is not None:
                yield _point(f"{_FINAL}{name.removeprefix('total_')}", "tokens", value, event)
        yield from _evaluated("tokens", event, evaluations)


def milliseconds(seconds: float) -> int:
    """Return a time in seconds as whole milliseconds, rounded down."""
    return int(seconds * 1000)


def _point(name: str, over: Over, value: float, event: Event) -> Point:
    return Point(name, over, event[f"total_{over}"], float(value), milliseconds(event["time"]))


def _last(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event["event"] == "eval"][-1:]


def _measurements(event: Event) -> Iterator[tuple[str, float]]:
    prefix = _PREFIXES[event["event"]]
    for name, value in event.items():
        if name not in _NO_METRICS and value is not None:
            total = name.startswith("total_")
            yield (f"total/{name.removeprefix('total_')}" if total else f"{prefix}/{name}"), value


def _system_points(events: Iterable[Event]) -> Iterator[Point]:
    """Yield the tokens per second of all devices together, the peak memory of the leading rank in GB, and the speed in
    TFLOP/s and the power in watts per device. Speed and power are averages between consecutive `train` events."""
    logged = [event for event in events if event["event"] == "train"]
    for event in logged:
        if event.get("tokens_per_second") is not None:
            yield _point("system/tokens_per_second", "tokens", event["tokens_per_second"], event)
        if event.get("peak_memory") is not None:
            yield _point("system/peak_memory_gigabytes", "tokens", event["peak_memory"] / 1e9, event)
    for before, event in pairwise(logged):
        seconds = event.get("total_device_seconds", 0.0) - before.get("total_device_seconds", 0.0)
        if seconds > 0:
            flops = event["total_flops"] - before["total_flops"]
            yield _point("system/model_teraflops_per_second", "tokens", flops / seconds / 1e12, event)
            if "total_joules" in event and "total_joules" in before:
                joules = event["total_joules"] - before["total_joules"]
                yield _point("system/power_watts", "tokens", joules / seconds, event)


def _evaluated(over: Over, event: Event, evaluations: Iterable[dict[str, Any]]) -> Iterator[Point]:
    for entry in evaluations:
        time = milliseconds(datetime.fromisoformat(entry["time"]).timestamp())
        for measure, value in measured(entry).items():
            yield _point(f"{_EVALUATED}{entry['name']}/{measure}", over, value, event)._replace(time=time)
