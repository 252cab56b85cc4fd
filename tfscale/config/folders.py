"""Folders that are searched for configuration files."""

from collections.abc import Sequence
from pathlib import Path

from tfscale.faults import Fault, UserFault

SHIPPED_ALONE = Path("none")
"""Value of `--config-dir` with which only the shipped files are read."""


def conf_dir() -> Path:
    """Return the shipped configuration folder, which is inside the package in a wheel and next to it otherwise."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def config_folders(config_dir: Path | None = None) -> list[Path]:
    """Return the folders to search, in order: `config_dir`, `conf/` in the working folder, and the shipped folder.

    Raises:
        UserFault: `config_dir` is not a folder.
    """
    if config_dir == SHIPPED_ALONE:
        return [conf_dir()]
    if config_dir is not None and not config_dir.is_dir():
        raise UserFault([Fault("--config-dir", config_dir, "must be a folder, or none to read only the shipped files")])
    here = Path.cwd() / "conf"
    own = [here] if here.is_dir() and here.resolve() != conf_dir().resolve() else []
    return [*([config_dir.resolve()] if config_dir else []), *own, conf_dir()]


def group_options(folders: Sequence[Path] | None = None) -> dict[str, list[str]]:
    """Return the sorted option names of every configuration group in the folders, by default in the shipped one."""
    from tfscale.config.keys import PARTS

    options: dict[str, set[str]] = {}
    for folder in folders or [conf_dir()]:
        for file in sorted(folder.glob("*/*.yaml")):
            if file.parent.name in PARTS:
                options.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(names) for group, names in sorted(options.items())}


def find(name: str, folders: Sequence[Path]) -> Path | None:
    """Return the path of a file in the first folder that contains the file, or None."""
    return next((path for folder in folders if (path := folder / name).is_file()), None)


def shown(path: Path) -> Path:
    """Return a path as messages show it: relative to the working folder if it is inside, otherwise unchanged."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
