"""Text source that reads the docstrings of installed packages: about 30 MB of technical English without a download.

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

PACKAGES = (
    "PIL", "aiohttp", "alembic", "click", "fastapi", "flask", "fontTools", "fsspec", "huggingface_hub", "jinja2",
    "joblib", "matplotlib", "mlflow", "mpmath", "networkx", "numpy", "omegaconf", "pandas", "pyarrow", "pydantic",
    "pygments", "rich", "scipy", "sklearn", "sqlalchemy", "sympy", "torch", "werkzeug",
)  # fmt: skip
"""Import names of direct and indirect dependencies of tfscale that have long docstrings."""
_DISTRIBUTIONS = {"PIL": "pillow", "fontTools": "fonttools", "sklearn": "scikit-learn"}
"""Mapping from the import name of a package to the name of its distribution, for packages whose names differ."""

DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class DocstringSource(Source):
    """A source with one document per docstring of the installed packages. The documents are sorted by package and file.
    Within a file, docstrings of outer definitions precede docstrings of nested definitions."""

    packages: tuple[str, ...] = PACKAGES
    min_characters: int = 200
    """Minimum length of a docstring in characters. Shorter docstrings are skipped, because they are usually
    fragments."""

    @classmethod
    def of(cls, spec: CorpusSpec, root: Path | None) -> "DocstringSource":
        return cls()

    def identity(self) -> dict[str, str]:
        """Return the versions and settings that determine the text, without reading the files. The values include the
        version of Python, because files that this version cannot parse are skipped."""
        installed = self._installed()
        if not installed:
            packages = ", ".join(self.packages)
            fault = f"none of the packages {packages} is installed. Install tfscale with its dependencies."
            raise DataError(f"data.source=docs: {fault}")
        return {
            "source": "docs",
            "packages": " ".join(installed),
            "min_characters": str(self.min_characters),
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        }

    def parts(self) -> list["PackageDocstrings"]:
        return [PackageDocstrings(folder, self.min_characters) for folder in self._installed().values()]

    def _installed(self) -> dict[str, Path]:
        """Return the folders of the installed packages, keyed by requirements such as numpy==2.3.1."""
        found = {}
        for package in sorted(self.packages):
            spec = importlib.util.find_spec(package)
            if spec and spec.submodule_search_locations:
                distribution = _DISTRIBUTIONS.get(package, package)
                with suppress(importlib.metadata.PackageNotFoundError):  # a module without a distribution
                    version = importlib.metadata.version(distribution)
                    found[f"{distribution}=={version}"] = Path(spec.submodule_search_locations[0])
        return found


@dataclass(frozen=True)
class PackageDocstrings:
    """A part of the corpus that contains the docstrings of one package."""

    folder: Path
    min_characters: int

    @property
    def size(self) -> int:
        return sum(file.stat().st_size for file in self.folder.rglob("*.py"))

    def documents(self) -> Iterator[str]:
        for file in sorted(self.folder.rglob("*.py")):
            for text in _docstrings(file.read_bytes()):
                if len(text) >= self.min_characters:
                    yield text


def _docstrings(source: bytes) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the source files
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            return  # a template, or a file for another version of Python
    for node in ast.walk(tree):
        text = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
        if text is not None and not re.search("[\ud800-\udfff]", text):  # an unpaired surrogate
            yield text
