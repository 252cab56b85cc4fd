"""Where labels go, so that none covers another or a marker."""

from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""

LETTER_WIDTH, MARKER = 0.68, 4.0
"""Of a letter, as a fraction of its height; half of a marker, in points of type."""


@dataclass(frozen=True)
class Label:
    """A text beside a point, in points of type from the corner of the axes."""

    text: str
    at: Point


@dataclass(frozen=True)
class Placed:
    """How a label stands to its point."""

    offset: Point
    ha: str
    va: str


PLACES = (
    Placed((-4, -4), "right", "top"),
    Placed((4, 3), "left", "bottom"),
    Placed((-4, 3), "right", "bottom"),
    Placed((4, -4), "left", "top"),
    Placed((0, 6), "center", "bottom"),
    Placed((0, -6), "center", "top"),
    Placed((7, 0), "left", "center"),
    Placed((-7, 0), "right", "center"),
    Placed((10, 9), "left", "bottom"),
    Placed((-10, -10), "right", "top"),
    Placed((10, -10), "left", "top"),
    Placed((-10, 9), "right", "bottom"),
)
"""From the best to the last resort."""


def place(labels: Sequence[Label], markers: Sequence[Point], letter: float) -> list[Placed]:
    """A place for each label, the first ones first: the first of PLACES that covers nothing, or that covers least.

    Args:
        markers: points that no label should cover.
        letter: height of the type.
    """
    taken: list[Box] = [(x - MARKER, y - MARKER, x + MARKER, y + MARKER) for x, y in markers]
    placed = []
    for label in labels:
        best = min(PLACES, key=lambda p, label=label: _covered(_box(label, p, letter), taken))  # type: ignore[misc]
        taken.append(_box(label, best, letter))
        placed.append(best)
    return placed


def _box(label: Label, placed: Placed, letter: float) -> Box:
    width, height = LETTER_WIDTH * letter * len(label.text), letter
    x, y = label.at[0] + placed.offset[0], label.at[1] + placed.offset[1]
    left = {"left": x, "right": x - width, "center": x - width / 2}[placed.ha]
    bottom = {"bottom": y, "top": y - height, "center": y - height / 2}[placed.va]
    return left, bottom, left + width, bottom + height


def _covered(box: Box, taken: Sequence[Box]) -> float:
    """Area that the box has in common with others."""
    return sum(
        max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
        * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
        for other in taken
    )
