"""Fast exit of a process that has imported large libraries such as torch."""

import gc
import sys
from typing import NoReturn


def exit_quickly(code: int) -> NoReturn:
    """Exit the process with the given exit code, without a final garbage collection, which takes 0.4 seconds if torch
    is imported."""
    gc.freeze()
    sys.exit(code)
