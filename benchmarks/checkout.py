"""Checkout that contains these benchmarks."""

import os
from collections.abc import Mapping
from pathlib import Path

from tfscale.import_path import python_path

ROOT = Path(__file__).resolve().parents[1]


def import_from_checkout() -> Mapping[str, str]:
    """Return environment variables with which a child process imports this checkout instead of an installed package."""
    return {"PYTHONPATH": os.pathsep.join(each for each in (str(ROOT), python_path()) if each)}
