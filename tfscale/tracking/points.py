"""What a stage has measured, as MLflow metrics."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from re import sub
from typing import Any, NamedTuple

from tfscale.stage.evaluations import measured
from tfscale.stage.events import Event

CURVE = "heldout/perplexity_by_gflop"
"""Held-out perplexity; its step is the model GFLOPs of the lineage, so that MLflow's charts draw it over compute, on
a logarithmic axis too."""
ENDPOINTS = "final/perplexity_by_gflop"
"""The same, with which each finished stage of an arm ended: the form of the paper's Figure 3."""

_PREFIXES = {"train": "train", "eval": "heldout"}
_PLACE = ("event", "step", "tokens", "time", "heldout_tokens", "heldout_bytes", "tokens_per_second", "peak_memory")
_FINAL, _EVALUATED = "final/", "eval/"
_MEASURES = ("loss", "perplexity", "bits_per_byte")


class Point(NamedTuple):
    """One value of one metric."""

    name: str
    step: int
    value: float
    time: int
    """Milliseconds since 1970."""


Place = tuple[str, int, int]


def place(name: str, step: int, time: int) -> Place:
    """What a value is known by. Steps that were done again after a resume stand where the first ones stood, at whatever
    time; a finished model that is evaluated again has another value."""
    return name, step, time if name.startswith(_EVALUATED) else 0


def stage_points(events: Iterable[Event]) -> list[Point]:
    """The metrics of a stage, in the order of its events: train/*, heldout/*, system/* and total/* with the lineage's
    tokens as their step, and the curve over compute."""
    places: dict[tuple[str, int], Point] = {}
    for event in events:
        if event["event"] in _PREFIXES:
            for name, value in _measurements(event):
                point = Point(name, int(event["total_tokens"]), value, milliseconds(event["time"]))
                places.setdefault((point.name, point.step), point)  # an evaluation and a log line share their totals
    return [*places.values(), *_system_points(events), *curve_points(events)]


def curve_points(events: Iterable[Event]) -> list[Point]:
    """Held-out perplexity over compute. Evaluations less than a GFLOP apart, as in tiny runs, share a step and stay
    points of their own."""
    evaluations = {event["step"]: event for event in events if event["event"] == "eval"}
    return [_by_gflop(CURVE, event) for event in evaluations.values()]


def end_point(events: Iterable[Event]) -> list[Point]:
    """The last evaluation over compute; empty if there is none."""
    return [_by_gflop(ENDPOINTS, event) for event in _last(events)]


def final_points(events: Iterable[Event]) -> list[Point]:
    """What a finished stage's model has come to, and what it has cost with its parents: final/*."""
    return [
        Point(f"{_FINAL}{name.removeprefix('total_')}", int(event["total_tokens"]), value, milliseconds(event["time"]))
        for event in _last(events)
        for name, value in event.items()
        if (name in _MEASURES or name.startswith("total_")) and value is not None
    ]


def evaluation_points(evaluations: Iterable[dict[str, Any]], events: Iterable[Event]) -> list[Point]:
    """What `tfscale eval` has measured, eval/NAME/MEASURE, at the tokens of the lineage."""
    return [
        Point(name, int(event["total_tokens"]), value, time)
        for event in _last(events)
        for name, value, time in _evaluated(evaluations)
    ]


def evaluations_over_compute(evaluations: Iterable[dict[str, Any]], events: Iterable[Event]) -> list[Point]:
    """The same over model GFLOPs, without the standard errors."""
    return [
        Point(f"{name}_by_gflop", _gflops(event), value, time)
        for event in _last(events)
        for name, value, time in _evaluated(evaluations)
        if not name.endswith("_stderr")
    ]


def milliseconds(seconds: float) -> int:
    """MLflow's time of an event's."""
    return int(seconds * 1000)


def _last(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event["event"] == "eval"][-1:]


def _gflops(event: Event) -> int:
    return int(event["total_flops"] / 1e9)


def _by_gflop(name: str, event: Event) -> Point:
    return Point(name, _gflops(event), float(event["perplexity"]), milliseconds(event["time"]))


def _measurements(event: Event) -> Iterator[tuple[str, float]]:
    prefix = _PREFIXES[event["event"]]
    for name, value in event.items():
        if name not in _PLACE and value is not None:
            total = name.startswith("total_")
            yield (f"total/{name.removeprefix('total_')}" if total else f"{prefix}/{name}"), float(value)


def _system_points(events: Iterable[Event]) -> Iterator[Point]:
    """What the devices did, on the page that MLflow has for system metrics. Rates are of each device, between two log
    lines."""
    logged = [event for event in events if event["event"] == "train"]
    for event in logged:
        if event.get("tokens_per_second") is not None:
            yield _system("tokens_per_second", event["tokens_per_second"], event)
        if event.get("peak_memory") is not None:
            yield _system("peak_memory_gigabytes", event["peak_memory"] / 1e9, event)
    for before, event in pairwise(logged):
        seconds = event.get("total_device_seconds", 0.0) - before.get("total_device_seconds", 0.0)
        if seconds > 0:
            flops = event["total_flops"] - before["total_flops"]
            yield _system("model_teraflops_per_second", flops / seconds / 1e12, event)
            if "total_joules" in event and "total_joules" in before:
                yield _system("power_watts", (event["total_joules"] - before["total_joules"]) / seconds, event)


def _system(name: str, value: float, event: Event) -> Point:
    return Point(f"system/{name}", int(event["total_tokens"]), value, milliseconds(event["time"]))


def _evaluated(evaluations: Iterable[dict[str, Any]]) -> Iterator[tuple[str, float, int]]:
    for entry in evaluations:
        time = milliseconds(datetime.fromisoformat(entry["time"]).timestamp())
        for measure, value in measured(entry).items():
            yield sub(r"[^\w./ -]", "_", f"{_EVALUATED}{entry['name']}/{measure}"), value, time
