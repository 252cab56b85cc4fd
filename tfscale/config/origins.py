"""Lookup of the file and line in which an invalid value is set."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from tfscale.config.folders import IGNORE, File, conf_dir, config_folders, foreign_faults, group_options, shown
from tfscale.config.keys import type_of
from tfscale.config.merging import chosen_files
from tfscale.faults import Fault, UserFault


def files_of(overrides: Sequence[str], config_dir: Path | None) -> list[File]:
    """Return the configuration files that Hydra merges for the given overrides, in order of increasing precedence.
    Overrides that choose an unknown file are ignored."""
    _, folders = foreign_faults(config_folders(config_dir))
    groups = group_options(folders)

    def exists(text: str) -> bool:
        group, _, names = text.partition("=")
        return group in groups and set(re.findall(r"[^\[\],\s]+", names)) <= set(groups[group])

    return chosen_files([text for text in overrides if exists(text)], folders)


def with_places(faults: Sequence[Fault], overrides: Sequence[str], config_dir: Path | None) -> list[Fault]:
    """Return the faults. If an invalid value is set in a configuration file, its fault is replaced by a copy that
    contains the file and line of the value. Faults of values that an override sets are unchanged."""
    groups = group_options()
    typed = tuple(f"{key}." for text in overrides if (key := text.partition("=")[0].lstrip("+")) not in groups)
    wanted = {fault.key for fault in faults if fault.key not in ("", *groups) and not f"{fault.key}.".startswith(typed)}
    if not wanted:
        return list(faults)
    try:
        files = files_of(overrides, config_dir)
        places = {key: (file.path, line) for file in files for key, line in file.lines.items() if key in wanted}
    except (UserFault, OSError, RecursionError, yaml.YAMLError):
        return list(faults)
    return [_placed(fault, *places[fault.key]) if fault.key in places else fault for fault in faults]


def _placed(fault: Fault, path: Path, line: int) -> Fault:
    stranger = type_of(fault.key) is None and not path.is_relative_to(conf_dir())
    rule = f"{fault.rule} {IGNORE}" if stranger else fault.rule
    return replace(fault, rule=rule, location=f"{shown(path)}:{line}")
