"""The working folder stays off the import path: a user's `random.py` there must never be run in place of Python's own.

This module imports nothing that such a file could stand in for.
"""

import os
import sys
from importlib.machinery import PathFinder

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  pathlib could be the user's
"""The folder that this package is imported from."""


def leave_working_folder() -> None:
    """Take the working folder off this process's import path, where it comes before the standard library, and off that
    of the processes that Python's own libraries start, such as a pool of processes."""
    os.environ["PYTHONPATH"], os.environ["PYTHONSAFEPATH"] = python_path(), "1"
    sys.path[:] = _without_working_folder()


def python_path() -> str:
    """PYTHONPATH for a child process: this process's without the working folder. A source tree that is run in place, so
    that a child would find another tfscale or none, is put in front."""
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
        return False  # it has been removed, and nothing can be imported from there
