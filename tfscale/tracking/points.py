"""What a stage's events are as MLflow metrics."""

from collections.abc import Iterable
from typing import NamedTuple

from tfscale.training.events import Event

CURVE = "heldout/perplexity_by_gflop"
"""Held-out perplexity; its step is the model GFLOPs of the lineage, so that MLflow's charts draw it over compute, on
a logarithmic axis too."""
ENDPOINTS = "final/perplexity_by_gflop"
"""The same, with which each finished stage of an arm ended: the form of the paper's Figure 3."""

_PREFIXES = {"train": "train", "eval": "heldout"}
_PLACE = ("event", "step", "tokens", "time", "heldout_tokens", "heldout_bytes")


class Point(NamedTuple):
    """One value of one metric."""

    name: str
    step: int
    value: float
    time: int
    """Milliseconds since 1970."""


def stage_points(events: Iterable[Event]) -> list[Point]:
    """The metrics of a stage, in the order of its events: train/*, heldout/* and total/* with the lineage's tokens as
    their step, and the curve over compute."""
    places: dict[tuple[str, int], Point] = {}
    for event in events:
        if event["event"] in _PREFIXES:
            for name, value in _measurements(event):
                point = Point(name, int(event["total_tokens"]), value, milliseconds(event["time"]))
                places.setdefault((point.name, point.step), point)  # an evaluation and a log line share their totals
    return [*places.values(), *curve_points(events)]


def curve_points(events: Iterable[Event]) -> list[Point]:
    """Held-out perplexity over compute. Evaluations less than a GFLOP apart, as in tiny runs, share a step and stay
    points of their own."""
    evaluations = {event["step"]: event for event in events if event["event"] == "eval"}
    return [_by_gflop(CURVE, event) for event in evaluations.values()]


def end_point(events: Iterable[Event]) -> list[Point]:
    """The last evaluation over compute; empty if there is none."""
    return [_by_gflop(ENDPOINTS, event) for event in events if event["event"] == "eval"][-1:]


def milliseconds(seconds: float) -> int:
    """MLflow's time of an event's."""
    return int(seconds * 1000)


def _by_gflop(name: str, event: Event) -> Point:
    return Point(name, int(event["total_flops"] / 1e9), float(event["perplexity"]), milliseconds(event["time"]))


def _measurements(event: Event) -> Iterable[tuple[str, float]]:
    prefix = _PREFIXES[event["event"]]
    for name, value in event.items():
        if name not in _PLACE and value is not None:
            total = name.startswith("total_")
            yield (f"total/{name.removeprefix('total_')}" if total else f"{prefix}/{name}"), float(value)
