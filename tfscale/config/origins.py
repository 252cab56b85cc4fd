"""Where a value came from that turned out to be wrong: the file and the line."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from tfscale.config.files import composed_of
from tfscale.config.folders import conf_dir, config_folders, group_options, shown
from tfscale.config.foreign import IGNORE, foreign_faults


class Place(NamedTuple):
    """A line of a file."""

    path: Path
    line: int


_KEY = re.compile(r"(?:unknown key ')?([a-z][\w]*(?:\.[\w]+)*)(?==|' in a configuration file)")


def with_origins(faults: Sequence[str], overrides: Sequence[str], config_dir: Path | None) -> list[str]:
    """The faults, with file and line before each whose value stands in a configuration file."""
    keys = {fault: match[1] for fault in faults if (match := _KEY.match(fault))}
    _, folders = foreign_faults(config_folders(config_dir))
    groups = group_options(folders)
    said = [(key.lstrip("+"), value) for key, _, value in (text.partition("=") for text in overrides)]
    wanted = {
        key for key in keys.values()
        if not any(f"{key}.".startswith(f"{word}.") for word, _ in said if word not in groups)
    }  # fmt: skip
    if not wanted:
        return list(faults)
    places = _places(wanted, folders, {word: value for word, value in said if word in groups})
    return [_placed(fault, places[keys[fault]]) if keys.get(fault) in places else fault for fault in faults]


def _placed(fault: str, place: "Place") -> str:
    stranger = fault.startswith("unknown key") and not place.path.is_relative_to(conf_dir())
    return f"{shown(place.path)}:{place.line}: {fault}" + (f" {IGNORE}" if stranger else "")


def _places(keys: set[str], folders: Sequence[Path], chosen: Mapping[str, str]) -> "dict[str, Place]":
    """The place of each key that a file sets; of several files the one that counts."""
    try:
        files = composed_of(folders, chosen)
        found = [(setting, file.path) for file in files for setting in file.settings if setting.key in keys]
    except (OSError, RecursionError, yaml.YAMLError):
        return {}
    return {setting.key: Place(path, setting.line) for setting, path in found}
