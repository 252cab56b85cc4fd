"""Docstrings of installed packages: some 30 MB of technical English with nothing to download.

Source files are parsed, never imported.
"""

import ast
import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfscale.data.errors import DataError
from tfscale.data.sources import CorpusSpec, Source

PACKAGES = {
    "PIL": "pillow",
    "aiohttp": "aiohttp",
    "alembic": "alembic",
    "click": "click",
    "fastapi": "fastapi",
    "flask": "flask",
    "fontTools": "fonttools",
    "fsspec": "fsspec",
    "huggingface_hub": "huggingface_hub",
    "jinja2": "jinja2",
    "joblib": "joblib",
    "matplotlib": "matplotlib",
    "mlflow": "mlflow",
    "mpmath": "mpmath",
    "networkx": "networkx",
    "numpy": "numpy",
    "omegaconf": "omegaconf",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "pydantic": "pydantic",
    "pygments": "pygments",
    "rich": "rich",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "sqlalchemy": "sqlalchemy",
    "sympy": "sympy",
    "torch": "torch",
    "werkzeug": "werkzeug",
}
"""Import name and distribution of tfscale's dependencies, and of theirs, that document themselves at length."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Installed:
    """A package as it was found."""

    requirement: str
    """Such as numpy==2.3.1."""
    folder: Path


@dataclass(frozen=True)
class DocstringSource(Source):
    """One document a docstring, by package, file and place in the file. Packages that are not installed are left out:
    the identity names those that are, with their versions."""

    packages: tuple[str, ...] = tuple(PACKAGES)
    """Import names, out of PACKAGES."""
    min_characters: int = 200
    """Shorter docstrings are left out: they are labels rather than text."""

    @classmethod
    def of(cls, spec: CorpusSpec, root: Path | None) -> "DocstringSource":
        """Return the docstrings; there are no settings."""
        return cls()

    def missing(self) -> list[str]:
        """What must be installed first."""
        if self._installed():
            return []
        return [f"source=docs: none of {', '.join(self.packages)} is installed. Install tfscale with its dependencies."]

    def identity(self) -> dict[str, str]:
        """Versions and parameters, without a look at the files. Python's own version is among them because a file
        that it cannot parse is left out.

        Raises:
            DataError: none of the packages is installed.
        """
        if faults := self.missing():
            raise DataError(faults[0])
        return {
            "source": "docs",
            "packages": " ".join(package.requirement for package in self._installed()),
            "min_characters": str(self.min_characters),
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        }

    def parts(self) -> list["PackageDocstrings"]:
        """A part a package."""
        return [PackageDocstrings(package.folder, self.min_characters) for package in self._installed()]

    def _installed(self) -> list[Installed]:
        return [found for package in sorted(self.packages) if (found := _find(package))]


@dataclass(frozen=True)
class PackageDocstrings:
    """The docstrings of one package."""

    folder: Path
    min_characters: int

    @property
    def size(self) -> int:
        """Bytes of its source."""
        return sum(file.stat().st_size for file in self.folder.rglob("*.py"))

    def documents(self) -> Iterator[str]:
        """Docstrings without their indentation."""
        for file in sorted(self.folder.rglob("*.py")):
            for text in _docstrings(file.read_bytes()):
                if len(text) >= self.min_characters:
                    yield text


def _find(package: str) -> Installed | None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    distribution = PACKAGES[package]
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None  # a module of that name which no installer answers for
    return Installed(f"{distribution}=={version}", Path(spec.submodule_search_locations[0]))


def _docstrings(source: bytes) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's invalid escapes
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            return  # templates, and files for another version of Python
    for node in ast.walk(tree):
        if isinstance(node, Documented):
            text = ast.get_docstring(node)
            if text is not None and _is_unicode(text):
                yield text


def _is_unicode(text: str) -> bool:
    """Whether the text has a UTF-8 form: docstrings about Unicode may hold half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
