"""The checkout that these benchmarks are part of."""

import os
from collections.abc import Mapping
from pathlib import Path

from tfscale.import_path import python_path

ROOT = Path(__file__).resolve().parents[1]


def import_from_checkout() -> Mapping[str, str]:
    """Return variables that make a child process import this checkout, whatever is installed."""
    return {"PYTHONPATH": os.pathsep.join(each for each in (str(ROOT), python_path()) if each)}
