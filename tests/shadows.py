"""Working folder whose Python files must not be run."""

import sys
from importlib.metadata import packages_distributions
from pathlib import Path


class Shadows:
    """Folder with a file named after every module of the standard library and every installed package. Each file
    records that it was run."""

    def __init__(self, folder: Path, names: set[str] | None = None) -> None:
        """
        Args:
            names: of the modules, if not of all.
        """
        self.folder, self._marks = folder / "shadows", folder / "marks"
        self.folder.mkdir()
        self._marks.mkdir()
        known = {*sys.stdlib_module_names, *packages_distributions(), "sitecustomize", "usercustomize", "tfscale"}
        assert {"random", "statistics", "queue", "torch", "numpy", "yaml"} <= known
        for name in filter(str.isidentifier, known if names is None else names):
            leave_mark = f"open({str(self._marks / name)!r}, 'w').close()"
            (self.folder / f"{name}.py").write_text(f"{leave_mark}\nraise SystemExit({name!r})\n")

    def run(self) -> list[str]:
        """Return the modules whose files were run."""
        return sorted(mark.name for mark in self._marks.iterdir())
