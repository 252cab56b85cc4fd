"""The files that a configuration is composed of, read without Hydra: fast enough for the shell's completion, and with
the line of each value, which Hydra does not keep."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tfscale.config.aliases import KEYS
from tfscale.config.folders import conf_dir

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Safe either way; the one in C where PyYAML was built with it."""
_GLOBAL = re.compile(r"#\s*@package\s+_global_\b")


class Setting(NamedTuple):
    """A key that a file sets."""

    key: str
    """From the root, such as optim.lr."""
    text: str | None
    """Its value as it is written; empty for a list, None for a part of several keys."""
    line: int


@dataclass(frozen=True)
class File:
    """One of the files."""

    path: Path
    package: str
    """Where its keys stand, such as `optim`; empty for the root."""
    text: str

    @property
    def settings(self) -> Iterator[Setting]:
        """Its keys, outer ones before inner ones."""
        node = yaml.compose(self.text, Loader=_LOADER)
        yield from _settings(node, f"{self.package}." if self.package else "")

    @property
    def about(self) -> str:
        """The first sentence of the comment that it begins with, up to a colon."""
        lines = []
        for line in self.text.splitlines():
            if not line.startswith("#"):
                break
            if not _GLOBAL.match(line):
                lines.append(line.removeprefix("#").strip())
        whole = " ".join(lines)
        sentence = re.match(r"(.+?)(?:(?<![ .][a-z])[.](?=\s|$)|[:;](?=\s))", whole)
        return sentence[1] if sentence else whole


def read_file(path: Path, group: str) -> File:
    """A file of a group.

    Raises:
        OSError: it cannot be read.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    first = text.partition("\n")[0]
    return File(path, "" if _GLOBAL.match(first) else group, text)


def composed_of(folders: Sequence[Path], chosen: Mapping[str, str]) -> list[File]:
    """The files of a configuration in the order in which they are merged: later ones win.

    Args:
        folders: that are searched, the first one first.
        chosen: what follows `group=` on the command line; several names as [one,another].

    Raises:
        OSError, yaml.YAMLError: one of them cannot be read.
    """
    roots = (folder / "config.yaml" for folder in (*folders, conf_dir()))
    root = read_file(next(path for path in roots if path.is_file()), "")
    choices = {**_choices(root, folders, chosen), **chosen}
    return list(_merged(root, folders, choices))


def groups_of(root: File) -> set[str]:
    """Groups that the defaults of a root file name."""
    return {group for group, _, _ in _defaults(root) if group}


def _choices(file: File, folders: Sequence[Path], chosen: Mapping[str, str]) -> dict[str, str]:
    """Groups that the defaults of a file and of what it brings name."""
    choices: dict[str, str] = {}
    for group, name, _ in _defaults(file):
        if group:
            choices[group] = name
    for group, name in list(choices.items()):
        for path in _paths(folders, group, chosen.get(group, name)):
            choices |= _choices(read_file(path, group), folders, chosen)
    return choices


def _paths(folders: Sequence[Path], group: str, names: str) -> Iterator[Path]:
    """The files behind `group=names`, in the first folders that have them."""
    for name in names.strip("[]").split(","):
        paths = (folder / group / f"{name.strip()}.yaml" for folder in folders)
        yield from [path for path in paths if path.is_file()][:1]


def _merged(file: File, folders: Sequence[Path], choices: Mapping[str, str]) -> Iterator[File]:
    for group, name, overrides in _defaults(file):
        if overrides:
            continue  # it stands where the group is first named
        beside = file.path.parent.name  # the group of a name that says none
        for path in _paths(folders, group or beside, choices[group] if group else name):
            yield from _merged(read_file(path, group or beside), folders, choices)
    yield file


def _defaults(file: File) -> Iterator[tuple[str, str, bool]]:
    """Group, name and whether it overrides, of each entry of a file's defaults; the group is empty for a file of the
    same one."""
    node = yaml.safe_load(file.text)
    entries = node.get("defaults") if isinstance(node, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, str) and entry != "_self_":
            yield "", entry, False
        elif isinstance(entry, dict):
            for key, name in entry.items():
                overrides, _, group = str(key).rpartition(" ")
                yield group.removeprefix("/"), str(name), bool(overrides)


def _settings(node: Node | None, prefix: str) -> Iterator[Setting]:
    if not isinstance(node, MappingNode):
        return
    for name, value in node.value:
        key = f"{prefix}{name.value}"
        if key == "defaults" or (key.endswith(".defaults") and isinstance(value, SequenceNode)):
            continue
        text = None if isinstance(value, MappingNode) else value.value if isinstance(value, ScalarNode) else ""
        yield Setting(KEYS.get(key, key), text, name.start_mark.line + 1)
        yield from _settings(value, f"{key}.")


def nested(files: Sequence[File]) -> dict[str, Any]:
    """All keys with their values as they are written, as a tree."""
    tree: dict[str, Any] = {}
    for file in files:
        for key, text, _ in file.settings:
            *path, leaf = key.split(".")
            place = tree
            for part in path:
                inner = place.get(part)
                place[part] = place = inner if isinstance(inner, dict) else {}
            if text is not None:
                place[leaf] = text
            else:
                place.setdefault(leaf, {})
    return tree
