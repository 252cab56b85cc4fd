"""Docstrings of installed packages: about 30 MB of technical English that need no download.

Source files are parsed, never imported.
"""

import ast
import importlib.metadata
import importlib.util
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tfscale.data.errors import DataError
from tfscale.data.sources import CorpusSpec, Source

PACKAGES = {
    "PIL": "pillow", "aiohttp": "aiohttp", "alembic": "alembic", "click": "click", "fastapi": "fastapi",
    "flask": "flask", "fontTools": "fonttools", "fsspec": "fsspec", "huggingface_hub": "huggingface_hub",
    "jinja2": "jinja2", "joblib": "joblib", "matplotlib": "matplotlib", "mlflow": "mlflow", "mpmath": "mpmath",
    "networkx": "networkx", "numpy": "numpy", "omegaconf": "omegaconf", "pandas": "pandas", "pyarrow": "pyarrow",
    "pydantic": "pydantic", "pygments": "pygments", "rich": "rich", "scipy": "scipy", "sklearn": "scikit-learn",
    "sqlalchemy": "sqlalchemy", "sympy": "sympy", "torch": "torch", "werkzeug": "werkzeug",
}  # fmt: skip
"""Distributions by import name: direct and indirect dependencies of tfscale that have long docstrings."""

DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class DocstringSource(Source):
    """One document per docstring, by package, file and place in the file. Packages that are not installed are left
    out."""

    packages: tuple[str, ...] = tuple(PACKAGES)
    """Import names, out of PACKAGES."""
    min_characters: int = 200
    """Shorter docstrings are left out: they are labels rather than text."""

    @classmethod
    def of(cls, spec: CorpusSpec, root: Path | None) -> "DocstringSource":
        """Return the docstrings; there are no settings."""
        return cls()

    def missing(self) -> list[str]:
        """Return what must be installed first."""
        if self._installed():
            return []
        return [f"source=docs: none of {', '.join(self.packages)} is installed. Install tfscale with its dependencies."]

    def identity(self) -> dict[str, str]:
        """Return versions and parameters, without a look at the files. Python's own version is among them because a
        file that it cannot parse is left out.

        Raises:
            DataError: none of the packages is installed.
        """
        if faults := self.missing():
            raise DataError(faults[0])
        return {
            "source": "docs",
            "packages": " ".join(self._installed()),
            "min_characters": str(self.min_characters),
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        }

    def parts(self) -> list["PackageDocstrings"]:
        """Return one part per package."""
        return [PackageDocstrings(folder, self.min_characters) for folder in self._installed().values()]

    def _installed(self) -> dict[str, Path]:
        """Return the folders of the packages that are installed, by requirements such as numpy==2.3.1."""
        found = {}
        for package in sorted(self.packages):
            spec = importlib.util.find_spec(package)
            if spec and spec.submodule_search_locations:
                with suppress(importlib.metadata.PackageNotFoundError):  # a module without a distribution
                    version = importlib.metadata.version(PACKAGES[package])
                    found[f"{PACKAGES[package]}=={version}"] = Path(spec.submodule_search_locations[0])
        return found


@dataclass(frozen=True)
class PackageDocstrings:
    """The docstrings of one package."""

    folder: Path
    min_characters: int

    @property
    def size(self) -> int:
        """Size of the source files in bytes."""
        return sum(file.stat().st_size for file in self.folder.rglob("*.py"))

    def documents(self) -> Iterator[str]:
        """Read docstrings without their indentation."""
        for file in sorted(self.folder.rglob("*.py")):
            for text in _docstrings(file.read_bytes()):
                if len(text) >= self.min_characters:
                    yield text


def _docstrings(source: bytes) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's invalid escapes
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            return  # templates, and files for another version of Python
    for node in ast.walk(tree):
        text = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
        if text is not None and not re.search("[\ud800-\udfff]", text):  # half a surrogate pair
            yield text
