"""A curve drawn in a terminal: braille patterns where it knows them, plain characters where it does not."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfscale.schedule.progress import Sample

_BRAILLE = 0x2800
_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Of the dots of a character, four rows of two."""
_NEIGHBOURS = 4
"""Losses on each side that one is averaged with."""
_LABEL = 7
"""Characters to the left of the axis."""


@dataclass(frozen=True)
class Pen:
    """The characters of a drawing."""

    plain: bool
    mark: str
    wall: str
    floor: str
    corner: str
    tick: str


FINE = Pen(plain=False, mark="•", wall="│", floor="─", corner="└", tick="┴")
PLAIN = Pen(plain=True, mark="o", wall="|", floor="-", corner="+", tick="+")


def draw(
    lines: Sequence[Sequence[Sample]],
    marks: Sequence[Sample],
    names: Sequence[tuple[float, str]],
    unit: str,
    size: tuple[int, int],
    pen: Pen,
) -> list[str]:
    """Losses over model FLOPs, a string a row.

    Args:
        lines: the training losses of a lineage's stages, each drawn through, smoothed.
        marks: evaluations.
        names: where each stage begins, for the axis.
        unit: what stands at the axis' right end.
        size: columns and rows, axes included.
    """
    width, height = size[0] - _LABEL - 1, size[1] - 2
    lines = [_smooth(line) for line in lines]
    samples = list(itertools.chain(*lines, marks))
    right = max(sample.flops for sample in samples)
    low, high = _range([s.loss for line in lines for s in line], [s.loss for s in marks])

    def column(flops: float, columns: int) -> int:
        return min(columns - 1, int(flops / right * columns)) if right else 0

    def row(loss: float, rows: int) -> int:
        return min(rows - 1, max(0, round((high - loss) / (high - low) * (rows - 1))))

    cells: dict[tuple[int, int], int] = defaultdict(int)
    for line in lines:
        dots = [(column(s.flops, 2 * width), s.loss) for s in line if s.loss <= high]
        for x, y in _through([(x, row(loss, 4 * height)) for x, loss in _means(dots)]):
            cells[y // 4, x // 2] |= _BITS[y % 4][x % 2]
    shown = {place: "." if pen.plain else chr(_BRAILLE + bits) for place, bits in cells.items()}
    shown |= {(row(s.loss, height), column(s.flops, width)): pen.mark for s in marks}
    labels = {0: f"{high:.3f}", height - 1: f"{low:.3f}"}
    body = [
        f"{labels.get(y, ''):>{_LABEL}}{pen.wall}" + "".join(shown.get((y, x), " ") for x in range(width)).rstrip()
        for y in range(height)
    ]
    starts = [(column(flops, width), name) for flops, name in names]
    return [*body, *_axis(starts, unit, width, pen)]


def _range(losses: Sequence[float], evaluated: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest loss to show: a fall from the first steps' heights would press all that follows flat."""
    ordered = sorted(losses) or sorted(evaluated)
    high = max([ordered[int(0.9 * (len(ordered) - 1))], *evaluated])
    low = min([ordered[0], *evaluated])
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _smooth(line: Sequence[Sample]) -> list[Sample]:
    """Each loss averaged with its neighbours: a batch's loss alone is mostly noise."""
    windows = (line[max(0, i - _NEIGHBOURS) : i + _NEIGHBOURS + 1] for i in range(len(line)))
    return [
        Sample(each.flops, sum(s.loss for s in window) / len(window))
        for each, window in zip(line, windows, strict=True)
    ]


def _means(dots: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """One loss a column."""
    groups = itertools.groupby(dots, key=lambda dot: dot[0])
    means = []
    for x, group in groups:
        losses = [loss for _, loss in group]
        means.append((x, sum(losses) / len(losses)))
    return means


def _through(points: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """Every dot on the way from each point to the next."""
    yield from points[:1]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        steps = max(abs(x1 - x0), abs(y1 - y0))
        for step in range(1, steps + 1):
            yield round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps)


def _axis(starts: Sequence[tuple[int, str]], unit: str, width: int, pen: Pen) -> tuple[str, str]:
    """The floor with a tick where a stage begins, and the stages' names under it as far as there is room."""
    floor = [pen.floor] * width
    names = ""
    for x, name in starts:
        if x:
            floor[x] = pen.tick
        if x >= len(names) + bool(names) and x + len(name) + len(unit) < width:
            names = names.ljust(x) + name
    left = " " * _LABEL
    return f"{left}{pen.corner}{''.join(floor)}", f"{left} {names}{unit:>{width - len(names)}}"
