"""Style of the figures: size, fonts, colours for readers with colour vision deficiency (Okabe and Ito), and markers,
line styles and hatches that distinguish arms without colours."""

import io
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from tfscale.analysis.curves import ArmCurve, the_chain

FigureKind = Literal["png", "svg", "pdf"]
FIGURE_KINDS: tuple[FigureKind, ...] = get_args(FigureKind)

WIDTH = 5.5
"""Width of figures in inches, which is the text width of a single-column paper."""
PNG_DPI = 250
INK, GREY, PALE = "#222222", "#666666", "#DDDDDD"
TEXT, SMALL = 8.0, 6.8
"""Font sizes of the figures in points."""
SETTINGS = "matplotlibrc"
"""Name of Matplotlib's settings file."""


@dataclass(frozen=True)
class Style:
    """Visual style of an arm in all figures."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]
    hatch: str


CHAIN = Style("#0072B2", "o", "-", "")
OTHERS = (
    Style("#D55E00", "s", "--", "///"),
    Style("#009E73", "D", "-.", "..."),
    Style("#CC79A7", "v", ":", "\\\\\\"),
    Style("#E69F00", "P", (0, (5, 1, 1, 1, 1, 1)), "xxx"),
    Style("#56B4E9", "X", (0, (1, 2)), "+++"),
    Style("#000000", "*", (0, (8, 3)), "ooo"),
)


def styles(arms: Sequence[ArmCurve]) -> dict[str, Style]:
    """Return a mapping from the name of each arm to its style in all figures."""
    chain = the_chain(arms)
    found = {chain.name: CHAIN}
    for index, arm in enumerate(arm for arm in arms if arm is not chain):
        again, colour = divmod(index, len(OTHERS))  # colours repeat with a different marker, line and hatch
        found[arm.name] = replace(OTHERS[(colour + again) % len(OTHERS)], colour=OTHERS[colour].colour)
    return found


@contextmanager
def drawing() -> Iterator[None]:
    """Use tfscale's fonts and colours for all drawing and rendering within the context, regardless of the user's
    Matplotlib settings."""
    matplotlib = _matplotlib()
    defaults = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    look = {
        "font.size": TEXT,
        "font.family": "DejaVu Sans",
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "hatch.linewidth": 0.4,
        "svg.hashsalt": "tfscale",
        "pdf.fonttype": 42,
    }
    with matplotlib.rc_context(defaults | look):
        yield


def _matplotlib() -> Any:
    """Import Matplotlib without the user's settings. Matplotlib reads these settings during import, and an error in
    them can cause the import to fail."""
    if "matplotlib" in sys.modules:
        return import_module("matplotlib")
    spec = find_spec("matplotlib")
    shipped = Path(spec.origin or "").parent / "mpl-data" if spec else Path()
    before = {name: os.environ.pop(name, None) for name in ("MPLBACKEND", "MATPLOTLIBRC")}
    os.environ["MATPLOTLIBRC"] = str(shipped / SETTINGS)
    try:
        # matplotlib prefers a settings file in the working directory to all others.
        with chdir(shipped) if Path(SETTINGS).exists() else nullcontext():
            return import_module("matplotlib")
    finally:
        del os.environ["MATPLOTLIBRC"]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def blank(width: float, height: float) -> Any:
    """Return an empty `matplotlib.figure.Figure` of the given size in inches. This function must be called within the
    context of `drawing`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def render(figure: Any, kind: FigureKind) -> bytes:
    """Return the content of a PNG, SVG or PDF file that shows a figure. The same figure always results in the same
    bytes."""
    undated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    buffer = io.BytesIO()
    with drawing():
        figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=undated[kind])
    return buffer.getvalue()


def around(values: Sequence[float], before: float, after: float, least: float) -> tuple[float, float]:
    """Return the limits (low, high) of a logarithmic axis that contains all values.

    Args:
        before, after: margins below and above the values, as fractions of the logarithmic width of their range.
        least: minimum of this width, as a difference of natural logarithms, so that a narrow range also has margins.
    """
    low, high = math.log(min(values)), math.log(max(values))
    width = max(high - low, least)
    return math.exp(low - before * width), math.exp(high + after * width)


def tidy(axes: Any) -> None:
    """Remove the frame at the top and right of the axes, and add a faint grid behind the curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis="y", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL + 0.4)


def round_ticks(low: float, high: float) -> Any:
    """Return a Matplotlib locator for round tick values on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if high < 10 * low:
        return MaxNLocator(nbins=6, steps=[1, 2, 5, 10])
    return LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,))


def power(value: float) -> str:
    """Return a number as text: below 10^5 as in `1,000`, otherwise as Matplotlib mathtext that is displayed like
    2 x 10^12."""
    if value < 1e5:
        return f"{value:,g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    mantissa = mantissa.removesuffix(".0")
    return f"$10^{{{int(exponent)}}}$" if mantissa == "1" else f"${mantissa}\\times10^{{{int(exponent)}}}$"
