"""Configuration files, the folders that are searched for them, and detection of folders that belong to other
projects."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

from tfscale.config.aliases import KEYS
from tfscale.config.keys import PARTS
from tfscale.faults import Fault, UserFault

SHIPPED_ALONE = Path("none")
"""Value of `--config-dir` with which only the shipped files are read."""
IGNORE = (
    "If this conf/ belongs to another project, add --config-dir none to read only the shipped files, or run the "
    "command in another folder."
)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C version if PyYAML was built with libyaml
_GLOBAL = re.compile(r"#\s*@package\s+_global_\b")


@dataclass(frozen=True)
class File:
    """Configuration file with its text and the part of the configuration to which its keys belong."""

    path: Path
    package: str
    """Name of the part of the configuration to which the keys in the file belong, such as `optim`. An empty string
    stands for the root of the configuration."""
    text: str
    named: bool = False
    """True if the command line or the defaults in config.yaml choose the file. False if another file includes the
    file."""

    @property
    def lines(self) -> dict[str, int]:
        """Line number of each key in the file, starting at 1. The keys are written in full, such as optim.lr."""
        node = yaml.compose(self.text, Loader=_LOADER)
        return dict(_lines(node, f"{self.package}." if self.package else ""))

    @property
    def about(self) -> str:
        """Short description of the file. This is the first sentence of the comment at the top of the file, without the
        text after a colon or semicolon."""
        lines = []
        for line in self.text.splitlines():
            if not line.startswith("#"):
                break
            if not _GLOBAL.match(line):
                lines.append(line.removeprefix("#").strip())
        whole = " ".join(lines)
        sentence = re.match(r"(.+?)(?:(?<![ .][a-z])[.](?=\s|$)|[:;](?=\s))", whole)
        return sentence[1] if sentence else whole


def conf_dir() -> Path:
    """Return the folder of the shipped configuration files. The folder is inside the package if tfscale was installed
    from a wheel, and next to the package in a source checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def config_folders(config_dir: Path | None = None) -> list[Path]:
    """Return the folders that are searched for configuration files, in this order: `config_dir` if it is set, `conf/`
    in the working folder if it exists, and the shipped folder. If `config_dir` is `none`, return only the shipped
    folder. Raise UserFault if `config_dir` is neither `none` nor a folder."""
    if config_dir == SHIPPED_ALONE:
        return [conf_dir()]
    if config_dir is not None and not config_dir.is_dir():
        raise UserFault([Fault("--config-dir", config_dir, "must be a folder, or none to read only the shipped files")])
    here = Path.cwd() / "conf"
    own = [here] if here.is_dir() and here.resolve() != conf_dir().resolve() else []
    return [*([config_dir.resolve()] if config_dir else []), *own, conf_dir()]


def foreign_faults(folders: Sequence[Path]) -> tuple[list[Fault], list[Path]]:
    """Return a fault for each folder that belongs to another project, and the list of the remaining folders. The last
    element of `folders` must be the shipped folder, which is always kept."""
    *own, shipped = folders
    faults = {folder: fault for folder in own if (fault := _foreign(folder))}
    return list(faults.values()), [*(folder for folder in own if folder not in faults), shipped]


def _foreign(folder: Path) -> Fault | None:
    path = folder / "config.yaml"
    try:
        root = read_file(path)
        lines = {key: line for key, line in root.lines.items() if "." not in key}
        groups = _groups(yaml.safe_load(root.text))
    except (OSError, RecursionError, yaml.YAMLError):
        return None  # the file does not exist, or Hydra reports the problem
    unknown = [key for key in lines if key not in PARTS]
    if unknown:
        rule = f"contains settings unknown to tfscale: {' and '.join(map(repr, unknown[:2]))}."
        line = lines[unknown[0]]
    elif "schedule" not in groups:
        rule, line = "the defaults name no schedule.", 1
    else:
        return None
    return Fault("", None, f"{rule} {IGNORE}", location=f"{shown(path)}:{line}")


def _groups(root: Any) -> set[str]:
    entries = root.get("defaults") if isinstance(root, dict) else None
    names = [str(name) for entry in entries or () if isinstance(entry, dict) for name in entry]
    return {name.rpartition(" ")[2].removeprefix("/") for name in names}


def group_options(folders: Sequence[Path] | None = None) -> dict[str, list[str]]:
    """Return a mapping from each configuration group, such as `optim`, to the sorted names of its files in `folders`.
    By default, only the shipped folder is searched."""
    options: dict[str, set[str]] = {}
    for folder in folders or [conf_dir()]:
        for file in sorted(folder.glob("*/*.yaml")):
            if file.parent.name in PARTS:
                options.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(names) for group, names in sorted(options.items())}


def find(name: str, folders: Sequence[Path]) -> Path | None:
    """Return the path of the file `name` in the first folder that contains such a file, or None if no folder does."""
    return next((path for folder in folders if (path := folder / name).is_file()), None)


def shown(path: Path) -> Path:
    """Return the form of a path for messages. A path inside the working folder becomes relative to the working folder,
    and any other path is unchanged."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def read_file(path: Path, package: str = "", named: bool = False) -> File:
    """Return a configuration file with its text, or raise OSError if the file cannot be read."""
    return File(path, package, path.read_text(encoding="utf-8", errors="replace"), named)


def _lines(node: Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    if not isinstance(node, MappingNode):
        return
    for name, value in node.value:
        key = f"{prefix}{name.value}"
        if key == "defaults" or (key.endswith(".defaults") and isinstance(value, SequenceNode)):
            continue
        yield KEYS.get(key, key), name.start_mark.line + 1
        yield from _lines(value, f"{key}.")
