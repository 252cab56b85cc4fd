"""Removal of the working folder from the import path, so that a user's `random.py` there never replaces Python's own.

This module imports nothing that such a file could replace.
"""

import os
import sys
from importlib.machinery import PathFinder

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  pathlib could be the user's
"""Folder that this package is imported from."""


def leave_working_folder() -> None:
    """Remove the working folder from this process's import path, where it comes before the standard library, and from
    that of processes that Python's own libraries start, such as a pool of processes."""
    os.environ["PYTHONPATH"], os.environ["PYTHONSAFEPATH"] = python_path(), "1"
    sys.path[:] = _without_working_folder()


def python_path() -> str:
    """Return PYTHONPATH for a child process: that of this process without the working folder. A source tree that is run
    in place comes first if the child would otherwise find another tfscale or none."""
    told = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if not _is_working_folder(entry)]
    found = PathFinder.find_spec("tfscale", _without_working_folder())
    if found is None or found.origin != os.path.join(ROOT, "tfscale", "__init__.py"):  # noqa: PTH118
        told.insert(0, ROOT)
    return os.pathsep.join(told)


def _without_working_folder() -> list[str]:
    standard = sys.path.index(library) if (library := os.path.dirname(os.__file__)) in sys.path else 0  # noqa: PTH120
    return [entry for i, entry in enumerate(sys.path) if i > standard or not _is_working_folder(entry)]


def _is_working_folder(entry: str) -> bool:
    try:
        return os.path.realpath(entry) == os.path.realpath("")
    except FileNotFoundError:
        return False  # the working folder has been removed, so nothing can be imported from it
