"""Draws the pictures of docs/concepts: `python docs/pictures/draw.py` writes the SVG files beside it."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from tfscale.config.compose import compose
from tfscale.models.counts import flops
from tfscale.plan.plan import make_plan

HERE = Path(__file__).parent
OLD, NEW, INK, GREY, PALE = "#4c72b0", "#dd8452", "#222222", "#8a8a8a", "#e8ecf4"


def main() -> None:
    """Writes every picture beside this file; the same bytes each time."""
    mpl.rcParams.update({"svg.hashsalt": "tfscale", "font.family": "DejaVu Sans", "text.color": INK, "font.size": 10})
    for draw in (parameter_tokens, growth, costs, stages):
        figure = draw()
        figure.savefig(HERE / f"{draw.__name__}.svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.1)
        plt.close(figure)


def parameter_tokens() -> Figure:
    """One projection: a token asks every key, and gets the sum of the values, each by its score."""
    figure, axes = _canvas(9.6, 4.6)
    rows, width, cell = 7, 5, 0.32
    for row in range(rows):
        y, colour = 3.1 - row * cell - (0.22 if row >= 5 else 0), OLD if row < 5 else NEW
        _row(axes, 2.6, y, width, cell, colour)
        _box(axes, 5.3, y, cell, cell, colour, alpha=(0.25, 0.8, 0.1, 0.5, 0.35, 0.6, 0.2)[row])
        _row(axes, 6.9, y, width, cell, colour)
    _row(axes, 0.2, 2.0, width, cell, INK, alpha=0.55)
    _row(axes, 9.6, 2.0, width, cell, INK, alpha=0.55)
    for start, end in ((1.9, 2.5), (4.3, 5.2), (5.75, 6.8), (8.6, 9.5)):
        _arrow(axes, (start, 2.16), (end, 2.16))
    for x, text in ((1.0, "a token x\n(d numbers)"), (10.4, "what comes out\n(d numbers)")):
        axes.text(x, 1.85, text, ha="center", va="top")
    for x, text in ((3.4, "keys K\nn rows"), (5.46, "scores\nGELU(τ · x Kᵀ / ‖x Kᵀ‖)"), (7.7, "values V\nn rows")):
        axes.text(x, 3.55, text, ha="center", va="bottom")
    axes.text(0.2, 3.45, "a parameter token:\na key and its value,\none row of each", color=OLD, va="bottom")
    axes.plot([1.7, 2.5], [3.42, 3.26], color=OLD, linewidth=1)
    axes.text(
        5.46,
        0.5,
        "rows that a growth adds: x and the output keep their size,\nand so does everything around them",
        color=NEW,
        ha="center",
        va="top",
    )
    return figure


def growth() -> Figure:
    """Four recipes: what the rows that a growth adds begin as, and how far each norm reaches."""
    figure, axes = _canvas(9.6, 3.9)
    recipes = {
        "paper": (["random"] * 3, ["random"] * 3, [(0, 6)], "τ = √n of the new n\nchanges the function"),
        "exact": (["zero"] * 3, ["random"] * 3, [(0, 6)], "τ stays\nkeeps the function"),
        "grouped": (["random"] * 3, ["zero"] * 3, [(0, 3), (3, 6)], "a τ for each group\nkeeps the function"),
        "split": (["copy"] * 3, ["copy"] * 3, [(0, 6)], "τ grows with the copies\nkeeps the function"),
    }
    for number, (name, (keys, values, norms, text)) in enumerate(recipes.items()):
        x = 0.4 + 2.75 * number
        axes.text(x + 0.9, 3.6, name, ha="center", fontsize=12, weight="bold")
        axes.text(x + 0.35, 3.2, "keys", ha="center", color=GREY)
        axes.text(x + 1.45, 3.2, "values", ha="center", color=GREY)
        halved = "copy" in values
        for row in range(6):
            y = 2.75 - 0.32 * row
            kinds = (
                ("old", "half" if halved else "old")
                if row < 3
                else (keys[row - 3], "half" if halved else values[row - 3])
            )
            for left, kind in zip((x, x + 1.1), kinds, strict=True):
                _row_of(axes, left, y, kind)
        for first, last in norms:
            _bracket(axes, x + 0.92, 3.05 - 0.32 * first, 3.09 - 0.32 * last)
        axes.text(x + 0.9, 0.95, text, ha="center", va="top", fontsize=9)
    for x, kind, text in (
        (0.4, "old", "as trained"),
        (2.6, "random", "random"),
        (4.5, "zero", "zero"),
        (6.1, "half", "half of the old row"),
        (8.9, "copy", "copy"),
    ):
        _row_of(axes, x, 0.0, kind)
        axes.text(x + 0.8, 0.16, text, va="center", fontsize=9)
    axes.text(0.4, -0.3, "a bracket is the reach of one norm", fontsize=9, color=GREY, va="center")
    return figure


def costs() -> Figure:
    """The three costs of a size, in the FLOPs of the small chain."""
    plan = make_plan(compose(["schedule=progressive_tiny", "baseline=transformer", "tracking=none"]))
    spent = {
        arm.kind: [stage.spec.tokens * flops(stage.spec.model).training / 1e12 for stage in arm.stages]
        for arm in plan.arms
    }
    sizes = [stage.size for stage in plan.chain.stages]
    chain, scratch = spent["chain"], spent["scratch"]
    figure, axes = _canvas(9.6, 3.4)
    scale = 9.0 / sum(scratch)
    _parts(axes, 2.3, chain, sizes, OLD, scale)
    _parts(axes, 1.3, scratch[-1:], sizes[-1:], NEW, scale)
    _parts(axes, 0.3, scratch, sizes, NEW, scale)
    for y, text in ((2.3, "the chain"), (1.3, f"{sizes[-1]} from scratch"), (0.3, "all sizes\nfrom scratch")):
        axes.text(1.95, y + 0.25, text, ha="right", va="center")
    _span(axes, sum(chain[:-1]) * scale, sum(chain) * scale, 2.95, "marginal")
    _span(axes, 0, sum(chain) * scale, 3.35, "cumulative = family")
    axes.text(2.1 + sum(chain) * scale + 0.15, 1.55, "trained to the same cumulative cost", va="center", color=GREY)
    text = "family: one run per size, each until it has the chain's perplexity (drawn: the chain's cumulative cost)"
    axes.text(2.1, 0.02, text, va="center", color=GREY)
    return figure


def stages() -> Figure:
    """Two schedules that begin alike share what they have in common."""
    figure, axes = _canvas(9.6, 3.6)
    top, low = 2.4, 0.8
    names = ("124M", "354M", "757M", "1.4B")
    for column, (name, key) in enumerate(zip(names, ("9c1f", "4e07", "b2d8", "71aa"), strict=True)):
        _stage(axes, 0.3 + 2.75 * column, top, name, key, OLD)
    for column, (name, key) in enumerate(zip(names[1:], ("e5b3", "08c4", "d91e"), strict=True), start=1):
        _stage(axes, 0.3 + 2.75 * column, low, name, key, NEW)
    for column in range(3):
        _arrow(axes, (2.2 + 2.75 * column, top + 0.45), (3.0 + 2.75 * column, top + 0.45))
        if column:
            _arrow(axes, (2.2 + 2.75 * column, low + 0.45), (3.0 + 2.75 * column, low + 0.45))
    _arrow(axes, (1.25, top - 0.05), (3.0, low + 0.45))
    axes.text(0.3, 3.55, "schedule.growth_tokens=30B", color=OLD)
    axes.text(3.05, 0.5, "schedule.growth_tokens=15B: other tokens, other keys", color=NEW, va="top")
    axes.text(0.3, 1.95, "trained once,\nfor both", color=GREY, va="top")
    return figure


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Axes without ticks, on which a unit is as wide as it is high."""
    figure, axes = plt.subplots(figsize=(width, height))
    axes.set_xlim(0, 11.5)
    axes.set_ylim(-0.5, 11.5 * height / width - 0.5)
    axes.set_axis_off()
    return figure, axes


def _box(axes: Axes, x: float, y: float, width: float, height: float, colour: str, alpha: float = 1.0) -> None:
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, alpha=alpha, edgecolor="none"))
    axes.add_patch(Rectangle((x, y), width, height, facecolor="none", edgecolor=INK, linewidth=0.7))


def _row(axes: Axes, x: float, y: float, cells: int, side: float, colour: str, alpha: float = 0.55) -> None:
    for cell in range(cells):
        _box(axes, x + cell * side, y, side, side, colour, alpha)


def _row_of(axes: Axes, x: float, y: float, kind: str) -> None:
    """A parameter token's key or value, drawn by where it comes from."""
    colour, alpha = {
        "old": (OLD, 0.8),
        "copy": (OLD, 0.45),
        "half": (OLD, 0.2),
        "random": (NEW, 0.7),
        "zero": ("white", 1.0),
    }[kind]
    _box(axes, x, y, 0.7, 0.28, colour, alpha)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=INK, linewidth=1))


def _bracket(axes: Axes, x: float, top: float, bottom: float) -> None:
    axes.plot([x - 0.08, x, x, x - 0.08], [top, top, bottom, bottom], color=INK, linewidth=1)


def _stage(axes: Axes, x: float, y: float, name: str, key: str, colour: str) -> None:
    axes.add_patch(
        FancyBboxPatch((x, y), 1.9, 0.9, boxstyle="round,pad=0.02", facecolor=colour, alpha=0.25, edgecolor="none")
    )
    axes.text(x + 0.95, y + 0.6, name, ha="center", va="center", weight="bold")
    axes.text(x + 0.95, y + 0.25, f"key {key}…", ha="center", va="center", family="monospace", fontsize=9)


def _parts(axes: Axes, y: float, parts: list[float], names: list[str], colour: str, scale: float) -> None:
    """Costs end to end, each with the size that it made."""
    x = 2.1
    for number, (part, name) in enumerate(zip(parts, names, strict=True)):
        _box(axes, x, y, part * scale, 0.5, colour, alpha=0.3 + 0.15 * number)
        if part * scale > 0.5:
            axes.text(x + part * scale / 2, y + 0.25, name, ha="center", va="center", fontsize=9)
        x += part * scale


def _span(axes: Axes, start: float, end: float, y: float, text: str) -> None:
    axes.annotate("", (2.1 + start, y), (2.1 + end, y), arrowprops={"arrowstyle": "<->", "color": INK})
    axes.text(2.1 + (start + end) / 2, y + 0.06, text, ha="center", va="bottom", fontsize=9)


if __name__ == "__main__":
    main()
