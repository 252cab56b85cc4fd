"""Removal of the working folder from the import path, so that a user's `random.py` there never replaces the standard
module. This module imports nothing that such a file could replace."""

import os
import sys
from importlib.machinery import PathFinder

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  pathlib could be the user's
"""Folder that contains this package."""


def leave_working_folder() -> None:
    """Remove the working folder, which would precede the standard library, from the import path of this process and of
    processes that Python's libraries start, such as the workers of a process pool."""
    os.environ["PYTHONPATH"], os.environ["PYTHONSAFEPATH"] = python_path(), "1"
    sys.path[:] = _without_working_folder()


def python_path() -> str:
    """Return the PYTHONPATH of this process without the working folder, for a child process. `ROOT` is added in front
    if the child would otherwise import another tfscale or none."""
    kept = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if not _is_working_folder(entry)]
    found = PathFinder.find_spec("tfscale", _without_working_folder())
    if found is None or found.origin != os.path.join(ROOT, "tfscale", "__init__.py"):  # noqa: PTH118
        kept.insert(0, ROOT)
    return os.pathsep.join(kept)


def _without_working_folder() -> list[str]:
    standard = sys.path.index(library) if (library := os.path.dirname(os.__file__)) in sys.path else 0  # noqa: PTH120
    return [entry for i, entry in enumerate(sys.path) if i > standard or not _is_working_folder(entry)]


def _is_working_folder(entry: str) -> bool:
    try:
        return os.path.realpath(entry) == os.path.realpath("")
    except FileNotFoundError:
        return False  # the working folder has been removed, so nothing can be imported from it
