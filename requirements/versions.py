"""Print the installed version of every library in pyproject.toml, and the versions that it allows."""

import platform
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement


def main() -> None:
    """Print a line per library."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    print(f"Python {platform.python_version()} on {platform.system()}")
    for requirement in map(Requirement, texts):
        if requirement.name != project["name"]:
            print(f"{requirement.name:24} {_version(requirement.name):16} allowed: {requirement.specifier or 'any'}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
