"""Figures do not depend on the user's settings of matplotlib, however they are made."""

import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfscale.analysis.style import FIGURE_KINDS, blank, drawing, power, render

DRAW = """
from test_analysis_settings import digests
print(*digests())
"""

SETTINGS: dict[str, list[Any]] = {
    "text.usetex": [True],
    "figure.dpi": [7, 300],
    "savefig.dpi": [20],
    "savefig.bbox": ["tight"],
    "savefig.facecolor": ["red"],
    "savefig.transparent": [True],
    "svg.fonttype": ["none"],
    "svg.hashsalt": ["mine"],
    "pdf.fonttype": [3, 42],
    "pdf.compression": [0],
    "font.size": [40],
    "font.family": ["serif", "monospace"],
    "mathtext.fontset": ["cm", "stix"],
    "lines.linewidth": [9],
    "axes.facecolor": ["yellow"],
    "axes.grid": [True],
    "axes.unicode_minus": [False],
    "figure.constrained_layout.h_pad": [1.0],
    "path.sketch": [(1, 100, 2)],
    "hatch.color": ["red"],
    "image.cmap": ["gray"],
}


def digests() -> list[str]:
    """Hashes of a figure with text, formulas, lines, bars with hatches and a legend, in every form."""
    with drawing():
        figure = blank(4, 3)
        left, right = figure.subplots(1, 2)
        left.plot([1, 2, 3], [-1, 4, 9], label=f"loss {power(2.5e12)}")
        left.plot([1, 2, 3], [2, 3, 4])
        left.legend()
        right.bar([0, 1], [3, 5], hatch="///")
        right.set_title("costs")
    return [hashlib.sha256(render(figure, kind)).hexdigest() for kind in FIGURE_KINDS]


@functools.cache
def expected() -> list[str]:
    """The hashes under the settings that matplotlib is shipped with."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        return digests()


@settings(max_examples=5)
@given(st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in SETTINGS.items()}))
def test_settings_that_are_in_force_change_no_byte(chosen: Any) -> None:
    import matplotlib

    with matplotlib.rc_context(chosen):
        assert digests() == expected()


def test_a_style_of_the_users_changes_no_byte() -> None:
    import matplotlib.style

    with matplotlib.style.context(["dark_background", "ggplot"]):
        assert digests() == expected()


@pytest.mark.parametrize(
    ("settings_file", "environment"),
    [
        (None, {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}),
        (None, {"MPLBACKEND": "no such backend"}),
        (
            b"text.usetex: True\nfigure.dpi: 7\nsavefig.bbox: tight\naxes.prop_cycle: cycler('color', 'r')\nno colon",
            {},
        ),
        (b"\xff\xfe no text", {"MATPLOTLIBRC": "matplotlibrc"}),
        (None, {"HOME": "/proc/nowhere", "MPLCONFIGDIR": "/proc/nowhere"}),
    ],
    ids=["a notebook's backend", "no backend", "a file of settings", "a file that is none", "no home"],
)
def test_what_matplotlib_reads_when_it_is_imported_changes_no_byte(
    settings_file: bytes | None, environment: dict[str, str], tmp_path: Path
) -> None:
    if settings_file is not None:
        (tmp_path / "matplotlibrc").write_bytes(settings_file)
    tests = Path(__file__).parent
    answer = subprocess.run(
        [sys.executable, "-c", DRAW],
        cwd=tmp_path,
        env=os.environ | environment | {"PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout.split() == expected(), answer.stderr
    assert "matplotlibrc" not in answer.stderr
