"""Exit of a process that has imported large libraries."""

import gc
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """Exit without searching for unused objects first. With torch imported, the search takes 0.4 seconds."""
    gc.freeze()
    sys.exit(code)
